package namespaces_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
)

func key(name string) api.Key { return api.Key{Resource: "namespaces", Name: name} }

func TestEveryClusterHasItsNamespaces(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		want := []string{"default", "kube-node-lease", "kube-public", "kube-system"}
		if got := w.Names("namespaces", ""); !slices.Equal(got, want) {
			t.Errorf("namespaces: %v", got)
		}
	})
}

func TestADeletedNamespaceTakesAllAlong(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
		n := int32(3)
		w.Create(&corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "web"}, Spec: corev1.ReplicationControllerSpec{
			Replicas: &n, Template: &corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
			},
		}})
		w.Create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "held", Finalizers: []string{"example.com/hold"}}})
		w.Delete(key("x"))
		w.Advance(time.Minute)
		ns := w.Get(key("x")).(*corev1.Namespace)
		if ns.Status.Phase != corev1.NamespaceTerminating {
			t.Errorf("phase %s", ns.Status.Phase)
		}
		var said []string
		for _, c := range ns.Status.Conditions {
			said = append(said, c.Message)
		}
		if got := strings.Join(said, "; "); !strings.Contains(got, "configmaps in 1 resource instances") || !strings.Contains(got, "example.com/hold in 1 resource instances") {
			t.Errorf("it does not say what it waits for: %s", got)
		}
		if pods := w.Names("pods", "x"); len(pods) != 0 {
			t.Errorf("pods left: %v", pods)
		}
		late := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "late"}}
		if answer := w.Commit(command.Change{Op: command.Create, Key: api.KeyOf(late), Object: late}); !apierrors.IsForbidden(answer.Results[0].Err) {
			t.Errorf("a create in a terminating namespace: %v", answer.Results[0].Err)
		}
		controltest.Update(w, api.Key{Resource: "configmaps", Namespace: "x", Name: "held"}, func(c *corev1.ConfigMap) { c.Finalizers = nil })
		w.Advance(time.Minute)
		if w.Get(key("x")) != nil {
			t.Error("the namespace stayed")
		}
		w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
		w.Advance(time.Minute)
		if ns := w.Get(key("x")); ns == nil || ns.GetDeletionTimestamp() != nil {
			t.Error("a namespace of the same name did not live")
		}
	})
}

func TestANamespaceIsEmptiedHoweverItIsDeleted(t *testing.T) {
	for _, finalizer := range []string{metav1.FinalizerDeleteDependents, metav1.FinalizerOrphanDependents} {
		controltest.Run(t, func(w *controltest.World) {
			w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x", Finalizers: []string{finalizer}}})
			w.Create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a", Finalizers: []string{"example.com/hold"}}})
			w.Delete(key("x"))
			w.Advance(time.Minute)
			if w.Get(key("x")) == nil {
				t.Fatalf("%s: it went before its content", finalizer)
			}
			controltest.Update(w, api.Key{Resource: "configmaps", Namespace: "x", Name: "a"}, func(c *corev1.ConfigMap) { c.Finalizers = nil })
			w.Advance(time.Minute)
			if w.Get(key("x")) != nil || len(w.Names("configmaps", "x")) != 0 {
				t.Errorf("%s: the namespace or its content stayed", finalizer)
			}
		})
	}
}
