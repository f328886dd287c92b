package podworker

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

var noon = time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)

func twoContainers() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1"},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyOnFailure,
			Containers:    []corev1.Container{{Name: "a", Image: "app"}, {Name: "b", Image: "app"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// TestAPodThatIsStoppedHasNotEndedBeforeItsContainers: the next attempt of one
// may be on its way while the status still shows the end of the last.
func TestAPodThatIsStoppedHasNotEndedBeforeItsContainers(t *testing.T) {
	p := twoContainers()
	p.DeletionTimestamp = &metav1.Time{Time: noon}
	s := state{pod: p, old: &p.Status, phase: stopping, killAt: noon.Add(time.Minute), names: []string{"a", "b"}, children: map[string]*child{}}
	for _, name := range s.names {
		s.children[name] = &child{spawned: true, ran: true, report: &pod.ContainerReport{Status: exited(name, 137), Stopped: name == "b"}}
	}
	report := func(r pod.ContainerReport) corev1.PodPhase {
		s.reported("a", r, noon)
		return s.old.Phase
	}
	if got := report(pod.ContainerReport{Status: exited("a", 137), Signaled: true}); got != corev1.PodRunning {
		t.Errorf("phase %s while a may run", got)
	}
	if got := report(pod.ContainerReport{Status: exited("a", 0), Stopped: true}); got != corev1.PodFailed || s.phase != removing {
		t.Errorf("phase %s once both have ended", got)
	}
}

func exited(name string, code int32) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
}

// TestAnswersOfAnEarlierLife: what a dead instance asked for reaches the one
// that has not been told of its pod yet.
func TestAnswersOfAnEarlierLife(t *testing.T) {
	var s state
	for name, todo := range map[string][]effect{
		"volumes":  s.volumesMounted(pod.Mounted{UID: "u1"}, noon),
		"unmount":  s.removed(func(s *steps) *bool { return &s.volumes }, nil, noon),
		"wish":     s.wish(pod.Wish{Pod: twoContainers()}, noon),
		"look":     s.look(pod.Found{}, noon),
		"event":    s.happened(container.Event{Kind: container.ContainerExited, ContainerID: "u1.a.0"}),
		"written":  s.writtenUp(pod.Written{Number: 3}, noon),
		"hello":    s.hello("a", noon),
		"reported": s.reported("a", pod.ContainerReport{}, noon),
	} {
		if len(todo) > 0 {
			t.Errorf("%s: %v", name, todo)
		}
	}
}

// TestASandboxThatCannotBeDescribedIsTriedAgain, as one that cannot be made.
func TestASandboxThatCannotBeDescribedIsTriedAgain(t *testing.T) {
	p := twoContainers()
	p.Spec.HostAliases = []corev1.HostAlias{{IP: "none"}}
	s := state{pod: p, old: &p.Status, phase: preparing, turn: 3}
	for _, want := range []time.Duration{delay(1), delay(2)} {
		todo := s.sandboxRetry(3)
		if len(todo) != 2 || todo[1] != effect(wait{want, sandboxRetry{3}}) {
			t.Errorf("todo %v, want a note and to wait for %v", todo, want)
		}
	}
	p.Spec.HostAliases = nil
	if todo := s.sandboxRetry(3); len(todo) != 1 || !s.making {
		t.Errorf("todo %v once it can be", todo)
	}
}

// TestThePodsAddressIsKnownWhileVolumesWait: a subPathExpr may need it.
func TestThePodsAddressIsKnownWhileVolumesWait(t *testing.T) {
	p := twoContainers()
	s := state{
		pod: p, old: &p.Status, phase: preparing, asking: true, children: map[string]*child{},
		sandbox: &container.Sandbox{ID: "u1", Addr: netip.MustParseAddr("10.0.0.7"), Ready: true},
	}
	todo := s.volumesMounted(pod.Mounted{UID: "u1", Err: errors.New("no value for IP")}, noon)
	if r, ok := todo[len(todo)-1].(report); !ok || r.status.PodIP != "10.0.0.7" {
		t.Errorf("todo %v", todo)
	}
}

// TestWhatChangesWhileVolumesAreSetUpIsSetUpAfterwards, once, however often it
// changes meanwhile.
func TestWhatChangesWhileVolumesAreSetUpIsSetUpAfterwards(t *testing.T) {
	p := twoContainers()
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}}}
	s := state{pod: p, old: &p.Status, phase: active, mounted: true, children: map[string]*child{}}
	asks := func(todo []effect) (n int) {
		for _, e := range todo {
			if _, ok := e.(mount); ok {
				n++
			}
		}
		return n
	}
	change := func(version string) pod.Wish {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}
		return pod.Wish{Pod: p, Sources: api.Sources{ConfigMaps: map[string]*corev1.ConfigMap{"game": m}}}
	}
	for i, want := range []int{1, 0, 0} {
		if got := asks(s.wish(change(string(rune('1'+i))), noon)); got != want {
			t.Errorf("change %d: asked %d times, want %d", i, got, want)
		}
	}
	if got := asks(s.wish(change("3"), noon)); got != 0 || !s.stale {
		t.Errorf("what changes nothing: asked %d times", got)
	}
	if got := asks(s.volumesMounted(pod.Mounted{UID: "u1"}, noon)); got != 1 || s.stale {
		t.Errorf("once it is set up: asked %d times", got)
	}
	if got := asks(s.volumesMounted(pod.Mounted{UID: "u1"}, noon)); got != 0 || s.asking {
		t.Errorf("once it is all set up: asked %d times", got)
	}
	for turn := range s.asked {
		if got := asks(s.mountRetry(turn)); got != 0 {
			t.Errorf("timer %d asked", turn)
		}
	}
	if got := asks(s.volumesMounted(pod.Mounted{UID: "u1"}, noon)) + asks(s.volumesMounted(pod.Mounted{UID: "u1"}, noon)); got != 0 {
		t.Errorf("an answer that comes twice asked %d times", got)
	}
}
