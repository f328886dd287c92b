package pods_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/api"
)

func key(name string) api.Key {
	return api.Key{Resource: "pods", Namespace: "default", Name: name}
}

func bound(name, node string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "nginx"}}}}
}

func TestPodsOfANodeThatIsGone(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		w.Create(bound("bare", "n"))
		w.Create(bound("going", "n"))
		w.Delete(key("going"))
		owner := w.Create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "owner"}})
		kept := bound("kept", "n")
		kept.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("ConfigMap"))}
		w.Create(kept)
		w.Delete(api.Key{Resource: "nodes", Name: "n"})
		w.Advance(30 * time.Second)
		if got := len(w.Names("pods", "default")); got != 3 {
			t.Errorf("after half a minute %d pods are left", got)
		}
		w.Advance(time.Minute)
		if w.Get(key("going")) != nil || w.Get(key("kept")) != nil {
			t.Errorf("left: %v", w.Names("pods", "default"))
		}
		bare := w.Get(key("bare")).(*corev1.Pod)
		if bare.Status.Phase != corev1.PodFailed || bare.Status.Reason != "NodeLost" {
			t.Errorf("the bare pod: %s %s", bare.Status.Phase, bare.Status.Reason)
		}
	})
}

func TestANodeThatComesBackKeepsItsPods(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		w.Create(bound("bare", "n"))
		w.Delete(api.Key{Resource: "nodes", Name: "n"})
		w.Advance(30 * time.Second)
		w.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		w.Advance(time.Minute)
		if got := w.Get(key("bare")).(*corev1.Pod).Status.Phase; got == corev1.PodFailed {
			t.Error("the pod was given up")
		}
	})
}

func TestAFailedPodActorTakesNobodyAlong(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		w.Create(bound("a", "n"))
		w.Create(bound("b", "n"))
		w.Fail("control/controllers/pods/default.a")
		if w.Restarts("control/controllers/pods/default.a") != 1 || w.Restarts("control/controllers/pods/default.b") != 0 || w.Restarts("control/controllers/pods") != 0 {
			t.Error("the failure spread")
		}
	})
}
