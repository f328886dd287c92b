package containerworker

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// withHooks is a pod whose container has both.
func withHooks() *corev1.Pod {
	p := object("")
	p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}, PreStop: &corev1.LifecycleHandler{}}
	return p
}

// launchedWithHooks is a state whose container has been started.
func launchedWithHooks(t *testing.T) *state {
	t.Helper()
	s := fresh()
	s.run(pod.Run{Pod: withHooks(), Name: "c"}, noon)
	s.found(pod.ImageFound{Name: "app:1"}, noon)
	s.enter(pod.Enter{Number: 1})
	expect(t, "launched", s.launched(launched{id: "u1.c.0", created: true, fact: fact(0, container.Running)}, noon), "report, hook 1")
	return s
}

func TestAHookAfterTheStart(t *testing.T) {
	s := launchedWithHooks(t)
	if got := shows(s); got != "#0 ContainerCreating" {
		t.Errorf("shows %s", got)
	}
	expect(t, "an old answer", s.hooked(hooked{turn: 0}, noon), "")
	expect(t, "done", s.hooked(hooked{turn: 1}, noon), "report")
	expect(t, "done twice", s.hooked(hooked{turn: 1}, noon), "")
	if got := shows(s) + " " + fares(s); got != "#0 running true true" {
		t.Errorf("shows %s", got)
	}

	s = launchedWithHooks(t)
	todo := s.hooked(hooked{turn: 1, err: errors.New("no")}, noon)
	expect(t, "failed", todo, "report, wait 30s killDue, hook 2")
	if got := notes(todo); got != "FailedPostStartHook Killing" || s.why != "FailedPostStartHook" {
		t.Errorf("notes %s, %s", got, s.why)
	}
	expect(t, "the hook before its end", s.hooked(hooked{turn: 2}, noon), "signal terminated")
	expect(t, "ended", s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon), "report, launch u1.c.1")
	if got := shows(s); got != "#0 PostStartHookError after Completed" {
		t.Errorf("shows %s", got)
	}
	if s.view().Heals {
		t.Error("its exit code counts")
	}

	s = launchedWithHooks(t)
	expect(t, "ended meanwhile", s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon), "report, launch u1.c.1")
	expect(t, "late", s.hooked(hooked{turn: 1, err: errors.New("no")}, noon), "")
}

// TestAHookAfterARestart: until it is through, the status shows an end after
// which the container would not run again.
func TestAHookAfterARestart(t *testing.T) {
	s := fresh()
	p := withProbes(corev1.RestartPolicyOnFailure)
	p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}
	s.run(pod.Run{Pod: p, Name: "c", Found: []container.Container{fact(0, container.Running)}}, noon)
	s.found(pod.ImageFound{Name: "app:1"}, noon)
	s.enter(pod.Enter{Number: 1})
	s.health(health(pod.Liveness, false), noon)
	s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon)
	s.found(pod.ImageFound{Name: "app:1"}, noon)
	expect(t, "launched", s.launched(launched{id: "u1.c.1", created: true, fact: fact(1, container.Running)}, noon), "report, hook 1")
	if v := s.view(); !v.Heals {
		t.Errorf("%s: %+v", shows(s), v)
	}
	s.hooked(hooked{turn: 1}, noon)
	if v := s.view(); v.Heals || shows(s) != "#1 running after Completed" {
		t.Errorf("%s: %+v", shows(s), v)
	}
}

func TestAHookBeforeTheEnd(t *testing.T) {
	running := func() *state {
		s := launchedWithHooks(t)
		s.hooked(hooked{turn: 1}, noon)
		return s
	}
	s := running()
	todo := s.stop(pod.Stop{Grace: 30 * time.Second}, noon)
	expect(t, "stop", todo, "wait 30s killDue, hook 2")
	if got := notes(todo); got != "Killing" {
		t.Errorf("notes %s", got)
	}
	if v := s.view(); v.Signaled {
		t.Errorf("%+v", v)
	}
	expect(t, "again", s.stop(pod.Stop{Grace: 30 * time.Second}, noon), "")
	todo = s.hooked(hooked{turn: 2, err: errors.New("no")}, noon.Add(10*time.Second))
	expect(t, "failed", todo, "signal terminated")
	if got := notes(todo); got != "FailedPreStopHook" {
		t.Errorf("notes %s", got)
	}
	expect(t, "due", s.killDue(s.killTurn), "signal killed, wait 2s look")

	s = running()
	s.stop(pod.Stop{Grace: 30 * time.Second}, noon)
	expect(t, "through at the last moment", s.hooked(hooked{turn: 2}, noon.Add(29*time.Second)), "wait 2s killDue, signal terminated")

	s = running()
	s.stop(pod.Stop{Grace: 30 * time.Second}, noon)
	expect(t, "not through in time", s.killDue(s.killTurn), "wait 2s killDue, signal terminated")
	expect(t, "too late", s.hooked(hooked{turn: 2}, noon.Add(31*time.Second)), "")
	expect(t, "due", s.killDue(s.killTurn), "signal killed, wait 2s look")

	s = running()
	s.stop(pod.Stop{Grace: 30 * time.Second}, noon)
	expect(t, "at once after all", s.stop(pod.Stop{}, noon), "signal killed, wait 2s look")

	s = running()
	expect(t, "signalled in an earlier life", s.stop(pod.Stop{Grace: 3 * time.Second, Signaled: true}, noon), "wait 3s killDue, report")
}
