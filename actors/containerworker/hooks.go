package containerworker

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/pod"
)

// hooking is where a container stands with its hooks.
type hooking uint8

const (
	none       hooking = iota // nothing is under way
	afterStart                // the hook after its start is: until then it does not count as running
	beforeEnd                 // the hook before its end is: it has had no signal yet
	ending                    // that is through
)

// begin begins a hook.
func (s *state) begin(h hooking, handler *corev1.LifecycleHandler) effect {
	s.hooking = h
	s.hooks++
	return hook{handler, s.hooks}
}

// hooked takes what became of the hook under way.
func (s *state) hooked(m hooked, now time.Time) []effect {
	if m.turn != s.hooks || s.phase != running {
		return nil
	}
	switch s.hooking {
	case afterStart:
		s.hooking = none
		s.runs()
		if m.err == nil {
			return append([]effect{report{}}, s.changed(now)...)
		}
		s.mishap = &corev1.ContainerStateWaiting{Reason: "PostStartHookError", Message: m.err.Error()}
		// What it says may be secret: it does not go into an event.
		todo := []effect{note{corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed"}, report{}}
		return append(todo, s.quit(heal, pod.Grace(s.pod), now, "FailedPostStartHook")...)
	case beforeEnd:
		s.hooking = ending
		var todo []effect
		if m.err != nil {
			todo = append(todo, note{corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed"})
		}
		if least := now.Add(lastGrace); s.killAt.Before(least) {
			s.killAt = least
			s.killTurn++
		}
		return append(todo, s.signal(now)...)
	}
	return nil
}

// target is the container that runs.
func (s *state) target() pod.Target {
	return pod.Target{ID: s.id(), Addr: pod.AddrOf(s.pod, s.machine, s.addr), Pod: s.pod, Container: s.spec}
}
