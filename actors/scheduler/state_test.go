package scheduler_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/actors/reconcile"
	"github.com/troupe-sh/troupe/actors/scheduler"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
)

func key(name string) api.Key {
	return api.Key{Resource: "pods", Namespace: "default", Name: name}
}

func addNode(w *controltest.World, name, cpu string, change func(*corev1.Node)) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}}
	node.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("4"),
	}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if change != nil {
		change(node)
	}
	w.Create(node)
	status := w.Get(api.Key{Resource: "nodes", Name: name}).DeepCopyObject().(*corev1.Node)
	status.Status = node.Status
	w.Must(command.Change{Op: command.Status, Key: api.Key{Resource: "nodes", Name: name}, Object: status})
}

func pod(name, cpu string, change func(*corev1.PodSpec)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}}}
	if cpu != "" {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
	if change != nil {
		change(&p.Spec)
	}
	return p
}

func nodeOf(w *controltest.World, name string) string {
	return w.Get(key(name)).(*corev1.Pod).Spec.NodeName
}

// why is the message of the pod's PodScheduled condition.
func why(w *controltest.World, name string) string {
	for _, c := range w.Get(key(name)).(*corev1.Pod).Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return c.Message
		}
	}
	return ""
}

func TestPlacement(t *testing.T) {
	tests := map[string]struct {
		pod  *corev1.Pod
		want string // a node, or part of why there is none
	}{
		"where most room is left":      {pod("p", "500m", nil), "big"},
		"too much for any":             {pod("p", "64", nil), "0/3 nodes are available: 1 node(s) had untolerated taint {only: gpu}, 2 Insufficient cpu."},
		"a nodeSelector that one has":  {pod("p", "", func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"kubernetes.io/hostname": "small"} }), "small"},
		"a nodeSelector that none has": {pod("p", "", func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"disktype": "ssd"} }), "2 node(s) didn't match Pod's node affinity/selector"},
		"a taint that it tolerates, where it must go": {pod("p", "", func(s *corev1.PodSpec) {
			s.NodeSelector = map[string]string{"kubernetes.io/hostname": "tainted"}
			s.Tolerations = []corev1.Toleration{{Key: "only", Operator: corev1.TolerationOpExists}}
		}), "tainted"},
		"a taint that it does not tolerate": {pod("p", "", func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"kubernetes.io/hostname": "tainted"} }), "1 node(s) had untolerated taint {only: gpu}"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			controltest.Run(t, func(w *controltest.World) {
				addNode(w, "small", "1", nil)
				addNode(w, "big", "8", nil)
				addNode(w, "tainted", "32", func(n *corev1.Node) {
					n.Spec.Taints = []corev1.Taint{{Key: "only", Value: "gpu", Effect: corev1.TaintEffectNoSchedule}}
				})
				w.Create(test.pod)
				if got := nodeOf(w, "p"); got != test.want && (got != "" || !strings.Contains(why(w, "p"), test.want)) {
					t.Errorf("node %q, %q; want %q", got, why(w, "p"), test.want)
				}
			})
		})
	}
}

func TestAPodThatFitsNowhereIsPlacedWhenRoomAppears(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(pod("first", "", nil))
		if got := why(w, "first"); got != "no nodes available to schedule pods" {
			t.Errorf("without nodes: %q", got)
		}
		addNode(w, "n", "1", nil)
		if nodeOf(w, "first") != "n" {
			t.Error("a node came and the pod was not placed")
		}
		w.Create(pod("second", "800m", nil))
		w.Create(pod("third", "800m", nil))
		if nodeOf(w, "second") != "n" || nodeOf(w, "third") != "" {
			t.Fatalf("second on %q, third on %q", nodeOf(w, "second"), nodeOf(w, "third"))
		}
		if got := w.Reasons("default", "third"); len(got) != 1 || got[0] != "FailedScheduling×1" {
			t.Errorf("events: %v", got)
		}
		w.Must(command.Change{Op: command.Delete, Key: key("second")})
		if nodeOf(w, "third") != "n" {
			t.Errorf("room appeared, third is Pending: %s", why(w, "third"))
		}
		if got := w.Reasons("default", "third"); len(got) != 2 || got[1] != "Scheduled×1" {
			t.Errorf("events: %v", got)
		}
	})
}

func TestWhoIsPlacedFirst(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(pod("c-older", "600m", nil))
		w.Advance(2 * time.Second)
		w.Create(pod("b-younger", "600m", nil))
		w.Create(pod("d-important", "600m", func(s *corev1.PodSpec) { s.Priority = new(int32); *s.Priority = 10 }))
		w.Create(pod("a-younger", "600m", nil))
		for i, want := range []string{"d-important", "c-older", "a-younger", "b-younger"} {
			addNode(w, fmt.Sprint("n", i), "1", nil)
			if got := nodeOf(w, want); got != fmt.Sprint("n", i) {
				t.Errorf("place %d is not that of %s, which is on %q", i, want, got)
			}
		}
	})
}

func TestMachinesAreFilledToTheirPodCountAndNoFurther(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		addNode(w, "a", "8", nil)
		addNode(w, "b", "8", nil)
		for i := range 9 {
			w.Create(pod(fmt.Sprint("p", i), "", nil))
		}
		count := map[string]int{}
		for i := range 9 {
			count[nodeOf(w, fmt.Sprint("p", i))]++
		}
		if count["a"] != 4 || count["b"] != 4 || count[""] != 1 {
			t.Errorf("spread: %v", count)
		}
		if got := why(w, "p8"); got != "0/2 nodes are available: 2 Too many pods." {
			t.Errorf("the ninth: %q", got)
		}
	})
}

func TestAHostPortIsTakenOnce(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		addNode(w, "n", "8", nil)
		port := func(s *corev1.PodSpec) {
			s.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}}
		}
		w.Create(pod("a", "", port))
		w.Create(pod("b", "", port))
		if nodeOf(w, "a") != "n" || nodeOf(w, "b") != "" || !strings.Contains(why(w, "b"), "free ports") {
			t.Errorf("a on %q, b on %q: %s", nodeOf(w, "a"), nodeOf(w, "b"), why(w, "b"))
		}
	})
}

func TestACordonedOrUnreadyMachineGetsNothing(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		addNode(w, "n", "8", nil)
		node := api.Key{Resource: "nodes", Name: "n"}
		controltest.Update(w, node, func(n *corev1.Node) { n.Spec.Unschedulable = true })
		w.Create(pod("a", "", nil))
		if nodeOf(w, "a") != "" {
			t.Error("placed on a cordoned node")
		}
		controltest.Update(w, node, func(n *corev1.Node) { n.Spec.Unschedulable = false })
		if nodeOf(w, "a") != "n" {
			t.Errorf("uncordoned, and still Pending: %s", why(w, "a"))
		}
		down := w.Get(node).DeepCopyObject().(*corev1.Node)
		down.Status.Conditions[0].Status = corev1.ConditionFalse
		w.Must(command.Change{Op: command.Status, Key: node, Object: down})
		w.Create(pod("b", "", nil))
		if nodeOf(w, "b") != "" || !strings.Contains(why(w, "b"), corev1.TaintNodeNotReady) {
			t.Errorf("b on %q: %s", nodeOf(w, "b"), why(w, "b"))
		}
	})
}

func TestARestartedSchedulerKnowsWhatIsTaken(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		addNode(w, "n", "1", nil)
		w.Create(pod("a", "800m", nil))
		w.Fail("control/controllers/scheduler")
		w.Advance(time.Second)
		w.Create(pod("b", "800m", nil))
		if nodeOf(w, "b") != "" {
			t.Error("the room of a was given twice")
		}
	})
}

func TestAReasonThatCouldNotBeToldIsToldAgain(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(pod("a", "", nil))
		s := scheduler.New(w.Journal.Hub())(nil).(reconcile.Follower)
		s.Reset()
		first := s.Decide(time.Now())
		s.Answered(first.Changes, nil, errors.New("no room on disk"))
		if again := s.Decide(time.Now()); len(first.Changes) != 2 || len(again.Changes) != 2 {
			t.Errorf("changes: %d, and after a refusal %d", len(first.Changes), len(again.Changes))
		}
	})
}
