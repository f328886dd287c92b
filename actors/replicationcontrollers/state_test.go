package replicationcontrollers_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
)

var labels = map[string]string{"app": "web"}

var podSpec = corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}}

func controller(n int32) *corev1.ReplicationController {
	return &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ReplicationControllerSpec{Replicas: &n, Template: &corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec,
		}},
	}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels}, Spec: podSpec}
}

var key = api.Key{Resource: "replicationcontrollers", Namespace: "default", Name: "web"}

func podKey(name string) api.Key {
	return api.Key{Resource: "pods", Namespace: "default", Name: name}
}

func scaleTo(w *controltest.World, n int32) {
	controltest.Update(w, key, func(rc *corev1.ReplicationController) { rc.Spec.Replicas = &n })
}

func TestItKeepsTheNumber(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(controller(3))
		names := w.Names("pods", "default")
		if len(names) != 3 {
			t.Fatalf("pods: %v", names)
		}
		w.Delete(podKey(names[0]))
		after := w.Names("pods", "default")
		if len(after) != 3 || slices.Contains(after, names[0]) {
			t.Errorf("a deleted pod was not replaced: %v, then %v", names, after)
		}
		scaleTo(w, 1200)
		if n := len(w.Names("pods", "default")); n != 1200 {
			t.Errorf("scaled to 1200: %d", n)
		}
		scaleTo(w, 2)
		if n := len(w.Names("pods", "default")); n != 2 {
			t.Errorf("scaled to 2: %d", n)
		}
		rc := w.Get(key).(*corev1.ReplicationController)
		if rc.Status.Replicas != 2 || rc.Status.ObservedGeneration != rc.Generation || rc.Status.FullyLabeledReplicas != 2 || rc.Status.ReadyReplicas != 0 {
			t.Errorf("status: %+v, generation %d", rc.Status, rc.Generation)
		}
	})
}

func TestLargePodsAreMadeAndDeletedInSmallerBatches(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		rc := controller(20)
		rc.Spec.Template.Annotations = map[string]string{"a": strings.Repeat("x", 200<<10)}
		rc.Spec.Template.Spec.Containers[0].Args = []string{strings.Repeat("y", 500<<10)}
		w.Create(rc)
		w.Advance(time.Second)
		if n := len(w.Names("pods", "default")); n != 20 {
			t.Errorf("%d pods", n)
		}
		scaleTo(w, 0)
		w.Advance(time.Second)
		if n := len(w.Names("pods", "default")); n != 0 {
			t.Errorf("%d pods after scaling to 0", n)
		}
		for _, reason := range w.Reasons("default", "web") {
			if strings.HasPrefix(reason, "Failed") {
				t.Error(reason)
			}
		}
	})
}

func TestItAdoptsAndReleasesByLabel(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(pod("orphan"))
		w.Create(controller(2))
		if names := w.Names("pods", "default"); len(names) != 2 || !slices.Contains(names, "orphan") {
			t.Fatalf("the orphan was not adopted: %v", names)
		}
		if owner := metav1.GetControllerOf(w.Get(podKey("orphan"))); owner == nil || owner.Name != "web" {
			t.Errorf("the adopted pod's owner: %v", owner)
		}
		controltest.Update(w, podKey("orphan"), func(p *corev1.Pod) { p.Labels = map[string]string{"app": "other"} })
		if names := w.Names("pods", "default"); len(names) != 3 {
			t.Errorf("a released pod was not replaced: %v", names)
		}
		if owner := metav1.GetControllerOf(w.Get(podKey("orphan"))); owner != nil {
			t.Errorf("the released pod still belongs to %s", owner.Name)
		}
		w.Create(pod("one-more"))
		if names := w.Names("pods", "default"); len(names) != 3 {
			t.Errorf("a surplus pod that matches was not deleted: %v", names)
		}
	})
}

func TestItTakesAPodThatNamesItWithoutBeingControlled(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		rc := w.Create(controller(0))
		half := pod("half")
		half.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ReplicationController", Name: "web", UID: rc.GetUID()}}
		w.Create(half)
		abroad := pod("abroad")
		abroad.Namespace = "kube-system"
		w.Create(abroad)
		w.Advance(time.Second) // another writer may come first: then it is decided again
		if names := w.Names("pods", "default"); len(names) != 0 {
			t.Errorf("a surplus pod was not deleted: %v", names)
		}
		if owner := metav1.GetControllerOf(w.Get(api.Key{Resource: "pods", Namespace: "kube-system", Name: "abroad"})); owner != nil {
			t.Errorf("a pod of another namespace got the owner %s", owner.Name)
		}
	})
}

func TestAnEndedPodIsReplacedAndLeft(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(controller(1))
		name := w.Names("pods", "default")[0]
		failed := w.Get(podKey(name)).DeepCopyObject().(*corev1.Pod)
		failed.Status.Phase = corev1.PodFailed
		w.Must(command.Change{Op: command.Status, Key: podKey(name), Object: failed})
		if names := w.Names("pods", "default"); len(names) != 2 {
			t.Errorf("pods: %v", names)
		}
	})
}

func TestTheLeastUsefulGoFirst(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		ready := func(name, node string, since time.Duration, restarts int32) {
			p := pod(name)
			p.Spec.NodeName = node
			w.Create(p)
			status := w.Get(podKey(name)).DeepCopyObject().(*corev1.Pod)
			status.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "c", RestartCount: restarts}}}
			if since > 0 {
				status.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Now().Add(-since))}}
			}
			w.Must(command.Change{Op: command.Status, Key: podKey(name), Object: status})
		}
		for _, n := range []string{"n", "m"} {
			w.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
		}
		ready("e-alone", "m", time.Hour, 0)
		ready("d-old", "n", 2*time.Hour, 0)
		ready("c-young", "n", time.Minute, 0)
		ready("b-unready", "n", 0, 0)
		w.Create(pod("a-unplaced"))
		w.Create(controller(5))
		for _, want := range []string{"a-unplaced", "b-unready", "c-young"} {
			before := w.Names("pods", "default")
			rc := w.Get(key).(*corev1.ReplicationController)
			scaleTo(w, *rc.Spec.Replicas-1)
			for _, name := range before {
				p := w.Get(podKey(name))
				if gone := p == nil || p.GetDeletionTimestamp() != nil; gone && name >= want && name != want {
					t.Fatalf("%s went before %s", name, want)
				} else if !gone && name == want {
					t.Fatalf("%s stayed", want)
				}
			}
		}
	})
}

func TestARestartMakesNothingTwice(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(controller(4))
		for _, path := range []string{"control/controllers/replicationcontrollers/default.web", "control/controllers/replicationcontrollers", "control/registry"} {
			w.Fail(path)
			w.Advance(time.Second)
			if names := w.Names("pods", "default"); len(names) != 4 {
				t.Errorf("after %s failed: %v", path, names)
			}
		}
	})
}

func TestReadyForLongEnoughIsAvailable(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		rc := controller(1)
		rc.Spec.MinReadySeconds = 10
		w.Create(rc)
		name := w.Names("pods", "default")[0]
		status := w.Get(podKey(name)).DeepCopyObject().(*corev1.Pod)
		status.Status.Phase = corev1.PodRunning
		status.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Now())}}
		w.Must(command.Change{Op: command.Status, Key: podKey(name), Object: status})
		for _, want := range []int32{0, 1} {
			got := w.Get(key).(*corev1.ReplicationController).Status
			if got.ReadyReplicas != 1 || got.AvailableReplicas != want {
				t.Errorf("ready %d, available %d, want 1 and %d", got.ReadyReplicas, got.AvailableReplicas, want)
			}
			w.Advance(11 * time.Second)
		}
	})
}

func TestADeletedControllerTakesItsPodsAlong(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(controller(3))
		w.Delete(key)
		if names := w.Names("pods", "default"); len(names) != 0 {
			t.Errorf("left: %v", names)
		}
	})
}
