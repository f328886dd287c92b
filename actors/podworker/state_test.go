package podworker

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func object(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "app:1"}, {Name: "b", Image: "app:1"}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func deleted(grace int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		at := metav1.NewTime(noon)
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace
	}
}

func phased(phase corev1.PodPhase) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Phase = phase }
}

// line is what is to be done; notes by their reasons, timers left out.
func line(todo []effect) string {
	var parts []string
	for _, e := range todo {
		switch e := e.(type) {
		case wait:
		case spawn:
			parts = append(parts, "spawn "+e.name)
		case tell:
			parts = append(parts, strings.TrimPrefix(fmt.Sprintf("%T", e.message), "pod.")+" "+e.name)
		case probe:
			parts = append(parts, "probe "+strings.Join(e.ids, " "))
		case discard:
			parts = append(parts, "discard "+e.id)
		case report:
			parts = append(parts, "report "+string(e.status.Phase))
		case note:
			parts = append(parts, e.reason)
		case saveGrace:
			parts = append(parts, "save "+e.left.String())
		default:
			parts = append(parts, strings.TrimPrefix(fmt.Sprintf("%T", e), "podworker."))
		}
	}
	return strings.Join(parts, ", ")
}

func expect(t *testing.T, what string, todo []effect, want string) {
	t.Helper()
	if got := line(todo); got != want {
		t.Errorf("%s:\n got  %s\n want %s", what, got, want)
	}
}

func holding(ready bool, st container.State) pod.Found {
	return pod.Found{
		Sandbox:    &container.Sandbox{ID: "u1", Ready: ready},
		Containers: []container.Container{{ID: "u1.a.0", Name: "a", State: st}, {ID: "u1.x.0", Name: "x", State: st}},
	}
}

func TestWhatItBeginsWith(t *testing.T) {
	for _, c := range []struct {
		name  string
		pod   *corev1.Pod
		gone  bool
		found pod.Found
		todo  string
	}{
		{"a new pod", object(), false, pod.Found{}, "spawn a, spawn b, mount, runSandbox"},
		{"one that runs", object(), false, holding(true, container.Running), "spawn a, spawn b, discard u1.x.0, mount"},
		{"after a reboot", object(), false, holding(false, container.Exited), "spawn a, spawn b, discard u1.x.0, mount, SandboxChanged, runSandbox"},
		{"its sandbox was broken", object(), false, holding(false, container.Running), "spawn a, spawn b, discard u1.x.0, mount, SandboxChanged"},
		{"one that is being deleted", object(deleted(30)), false, holding(true, container.Running), "spawn a, spawn b, discard u1.x.0, loadGrace"},
		{"one deleted before it began", object(deleted(30)), false, pod.Found{}, "dismiss, report Failed, removeSandbox"},
		{"one that has ended", object(phased(corev1.PodSucceeded)), false, holding(true, container.Exited), "dismiss, report Succeeded, removeSandbox"},
		{"one that the registry does not have", object(), true, holding(true, container.Running), "spawn a, spawn b, discard u1.x.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &state{}
			expect(t, "keep", s.keep(pod.Keep{Pod: c.pod, Gone: c.gone, Found: c.found}, noon), c.todo)
			expect(t, "again", s.keep(pod.Keep{Pod: c.pod, Gone: c.gone, Found: c.found}, noon), "")
		})
	}
}

func says(name string, change func(*pod.ContainerReport)) pod.ContainerReport {
	r := pod.ContainerReport{Status: corev1.ContainerStatus{Name: name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	if change != nil {
		change(&r)
	}
	return r
}

func endedWith(code int32) func(*pod.ContainerReport) {
	return func(r *pod.ContainerReport) {
		r.Over = true
		r.Status.Ready = false
		r.Status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
	}
}

// started is a state whose containers run.
func started(t *testing.T, change ...func(*corev1.Pod)) *state {
	t.Helper()
	s := &state{}
	s.keep(pod.Keep{Pod: object(change...)}, noon)
	expect(t, "a", s.hello("a", noon), "Run a")
	expect(t, "b", s.hello("b", noon), "Run b")
	expect(t, "volumes", s.volumesMounted(pod.Mounted{UID: "u1"}, noon), "")
	expect(t, "sandbox", s.sandboxMade(sandboxMade{sandbox: container.Sandbox{ID: "u1", Ready: true}}, noon), "Enter a, Enter b")
	expect(t, "one runs", s.reported("a", says("a", nil), noon), "")
	expect(t, "both run", s.reported("b", says("b", nil), noon), "report Running")
	expect(t, "said again", s.reported("b", says("b", nil), noon), "")
	return s
}

func TestSandboxAndVolumesMayFail(t *testing.T) {
	s := &state{}
	s.keep(pod.Keep{Pod: object()}, noon)
	expect(t, "sandbox", s.sandboxMade(sandboxMade{err: errors.New("no")}, noon), "FailedCreatePodSandBox")
	expect(t, "of an earlier phase", s.sandboxRetry(s.turn-1), "")
	expect(t, "retry", s.sandboxRetry(s.turn), "runSandbox")
	expect(t, "retry while it is tried", s.sandboxRetry(s.turn), "")
	expect(t, "the runtime is away", s.sandboxMade(sandboxMade{err: container.ErrGone}, noon), "")
	expect(t, "volumes", s.volumesMounted(pod.Mounted{UID: "u1", Err: errors.New("no")}, noon), "FailedMount")
	expect(t, "of an earlier question", s.mountRetry(s.asked-1), "")
	expect(t, "retry", s.mountRetry(s.asked), "mount")
	expect(t, "of another pod", s.volumesMounted(pod.Mounted{UID: "u2"}, noon), "")
}

func TestTheEndByItself(t *testing.T) {
	s := started(t, func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
	expect(t, "one", s.reported("a", says("a", endedWith(0)), noon), "report Running")
	expect(t, "both", s.reported("b", says("b", endedWith(1)), noon), "report Failed")
	expect(t, "an earlier one is written", s.writtenUp(pod.Written{Number: s.sent - 1}, noon), "")
	expect(t, "written", s.writtenUp(pod.Written{Number: s.sent}, noon), "dismiss, removeSandbox")
	expect(t, "it fails", s.removed(sandboxStep, errors.New("no"), noon), "FailedKillPod")
	expect(t, "retry", s.removeRetry(s.turn, noon), "removeSandbox")
	expect(t, "sandbox", s.removed(sandboxStep, nil, noon), "unmount")
	expect(t, "volumes", s.removed(volumeStep, nil, noon), "report Failed")
	expect(t, "nothing is seen", s.look(pod.Found{}, noon), "")
	expect(t, "something is seen", s.look(holding(true, container.Exited), noon), "removeSandbox")
	s.removed(sandboxStep, nil, noon)
	expect(t, "removed again", s.removed(volumeStep, nil, noon), "")
	expect(t, "deleted", s.wish(pod.Wish{Pod: s.pod, Gone: true}, noon), "removeDisk")
	expect(t, "files", s.removed(diskStep, nil, noon), "ended")
}

func sandboxStep(s *steps) *bool { return &s.sandbox }
func volumeStep(s *steps) *bool  { return &s.volumes }
func diskStep(s *steps) *bool    { return &s.disk }

func TestDeletion(t *testing.T) {
	s := started(t)
	dying := object(deleted(30))
	expect(t, "wish", s.wish(pod.Wish{Pod: dying}, noon), "Stop a, Stop b")
	expect(t, "again", s.wish(pod.Wish{Pod: dying}, noon), "")
	expect(t, "longer", s.wish(pod.Wish{Pod: object(deleted(90))}, noon), "")
	signaled := func(r *pod.ContainerReport) { r.Signaled = true }
	stopped := func(r *pod.ContainerReport) { endedWith(0)(r); r.Over, r.Stopped, r.Signaled = false, true, true }
	expect(t, "one has its signal", s.reported("a", says("a", signaled), noon), "")
	expect(t, "both have", s.reported("b", says("b", signaled), noon.Add(time.Second)), "save 29s")
	expect(t, "shorter", s.wish(pod.Wish{Pod: object(deleted(5))}, noon.Add(2*time.Second)), "Stop a, Stop b, save 5s")
	if got := s.stopping(noon.Add(3 * time.Second)); got != (pod.Stop{Grace: 4 * time.Second, Signaled: true}) {
		t.Errorf("a child that starts now is told %+v", got)
	}
	expect(t, "one stopped", s.reported("a", says("a", stopped), noon), "report Running")
	expect(t, "both stopped", s.reported("b", says("b", stopped), noon), "report Succeeded, dismiss, removeSandbox")
	expect(t, "gone meanwhile", s.wish(pod.Wish{Pod: dying, Gone: true}, noon), "removeSandbox")
	s.removed(sandboxStep, nil, noon)
	s.removed(volumeStep, nil, noon)
	expect(t, "all removed", s.removed(diskStep, nil, noon), "ended")
}

func TestGraceOfAnEarlierLife(t *testing.T) {
	for _, c := range []struct {
		name   string
		loaded graceLoaded
		want   pod.Stop
	}{
		{"a record", graceLoaded{7 * time.Second, true}, pod.Stop{Grace: 7 * time.Second, Signaled: true}},
		{"no record", graceLoaded{}, pod.Stop{Grace: 30 * time.Second}},
		{"a record of a longer one", graceLoaded{time.Hour, true}, pod.Stop{Grace: 30 * time.Second, Signaled: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &state{}
			s.keep(pod.Keep{Pod: object(deleted(30)), Found: holding(true, container.Running)}, noon)
			expect(t, "a", s.hello("a", noon), "Run a")
			expect(t, "loaded", s.graceLoaded(c.loaded, noon), "Stop a")
			todo := s.hello("b", noon)
			if got := todo[1].(tell).message; got != c.want {
				t.Errorf("told %+v, want %+v", got, c.want)
			}
			expect(t, "loaded twice", s.graceLoaded(graceLoaded{time.Second, true}, noon), "")
		})
	}
}

func TestABrokenSandbox(t *testing.T) {
	s := started(t)
	expect(t, "a look", s.look(holding(false, container.Running), noon), "discard u1.x.0, Seen a, Seen b, seekSandbox")
	expect(t, "it is well", s.sandboxSeen(sandboxSeen{number: s.number, sandbox: &container.Sandbox{Ready: true}}, noon), "")
	expect(t, "no answer", s.sandboxSeen(sandboxSeen{number: s.number, err: container.ErrGone}, noon), "")
	expect(t, "an old answer", s.sandboxSeen(sandboxSeen{number: s.number - 1}, noon), "")
	expect(t, "it is not", s.sandboxSeen(sandboxSeen{number: s.number}, noon), "SandboxChanged, Leave a, Leave b, report Running")
	left := func(r *pod.ContainerReport) { r.Left = s.number }
	expect(t, "one left", s.reported("a", says("a", left), noon), "")
	expect(t, "both left", s.reported("b", says("b", left), noon), "runSandbox")
	expect(t, "made", s.sandboxMade(sandboxMade{sandbox: container.Sandbox{Ready: true}}, noon), "Enter a, Enter b, report Running")

	expect(t, "a container says so", s.reported("a", says("a", func(r *pod.ContainerReport) { r.Lost = s.number }), noon),
		"SandboxChanged, Leave a, Leave b, report Running")
}

func TestAChildThatStartsAgain(t *testing.T) {
	s := started(t)
	expect(t, "hello", s.hello("a", noon), "probe u1.a.0 u1.a.1 u1.a.2")
	expect(t, "it is told nothing meanwhile", s.wish(pod.Wish{Pod: object(deleted(30))}, noon), "Stop b")
	expect(t, "no answer", s.probed(probed{name: "a", err: container.ErrGone}, noon), "")
	expect(t, "answer", s.probed(probed{name: "a"}, noon), "Run a, Stop a")
	expect(t, "a stranger", s.hello("z", noon), "")
}

func TestAdoptionReportsNothingUntilAllIsKnown(t *testing.T) {
	s := &state{}
	s.keep(pod.Keep{Pod: object(phased(corev1.PodRunning)), Found: holding(true, container.Running)}, noon)
	s.hello("a", noon)
	s.hello("b", noon)
	expect(t, "volumes", s.volumesMounted(pod.Mounted{UID: "u1"}, noon), "Enter a, Enter b")
	expect(t, "one", s.reported("a", says("a", nil), noon), "")
	expect(t, "both", s.reported("b", says("b", nil), noon), "report Running")
}
