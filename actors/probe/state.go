package probe

import (
	"fmt"
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/pod"
)

// state is a probe's whole memory. Its methods read no clock and do no I/O;
// they return what must happen next.
type state struct {
	kind   pod.ProbeKind
	target pod.Target
	spec   *corev1.Probe // nil: there is nothing to ask
	next   time.Time     // when it is, or was last, due
	free   bool          // the next failure counts for nothing
	turn   uint64        // timers and answers of an earlier one mean nothing

	last pod.Outcome // Passed or Failed
	run  int32       // times in a row
}

// effect is something to do.
type effect interface{ effect() }

type (
	forget struct{} // the question under way
	ask    struct{ turn uint64 }
	wait   struct {
		delay time.Duration
		turn  uint64
	}
	tell struct{ healthy bool }
	note struct{ kind, reason, message string }
)

func (forget) effect() {}
func (ask) effect()    {}
func (wait) effect()   {}
func (tell) effect()   {}
func (note) effect()   {}

// examine begins to ask a container, unless that is under way.
func (s *state) examine(m pod.Examine, now time.Time) []effect {
	spec := pod.ProbeOf(m.Target.Container, m.Kind)
	if spec == nil {
		return s.rest()
	}
	todo := s.rest()
	s.kind, s.target, s.spec = m.Kind, m.Target, spec
	first, period := seconds(spec.InitialDelaySeconds), seconds(spec.PeriodSeconds)
	switch m.Kind {
	case pod.Liveness:
		first = max(first, period) // what starts needs a moment, and nobody waits for this
	case pod.Startup:
		s.free = true // asked at once; still all of its periods are there to start in
	}
	delay := max(first-max(now.Sub(m.Since), 0), 0)
	if m.Adopted && delay == 0 {
		delay = share(m.Target.ID+string(m.Kind), period)
	}
	s.next = now.Add(delay)
	return append(todo, s.wait(now))
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// share is a part of a period, another one for each name: the probes of all
// containers that an agent adopts do not ask at once.
func share(name string, period time.Duration) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(name))
	return time.Duration(float64(period) * float64(h.Sum32()) / (1 << 32))
}

// rest ends the asking.
func (s *state) rest() []effect {
	s.turn++
	s.spec, s.last, s.run, s.free = nil, "", 0, false
	return []effect{forget{}}
}

func (s *state) wait(now time.Time) effect {
	s.turn++
	return wait{max(s.next.Sub(now), 0), s.turn}
}

func (s *state) due(turn uint64) []effect {
	if turn != s.turn || s.spec == nil {
		return nil
	}
	return []effect{ask{s.turn}}
}

// answered takes an answer, and tells what the last ones come to.
func (s *state) answered(m answered, now time.Time) []effect {
	if m.turn != s.turn || s.spec == nil {
		return nil
	}
	todo := s.say(m.answer)
	if outcome, counts := weigh(m.answer); counts && !s.pardons(outcome) {
		if outcome != s.last {
			s.last, s.run = outcome, 0
		}
		s.run++
		if s.run >= s.threshold() {
			todo = append(todo, tell{outcome == pod.Passed})
			if s.kind == pod.Startup || s.kind == pod.Liveness && outcome == pod.Failed {
				s.turn++
				return todo // the next question is to the next container
			}
		}
	}
	// What took longer than the period is followed by the next at once.
	if s.next = s.next.Add(seconds(s.spec.PeriodSeconds)); s.next.Before(now) {
		s.next = now
	}
	return append(todo, s.wait(now))
}

// pardons tells whether an outcome is a failure that counts for nothing.
func (s *state) pardons(o pod.Outcome) bool {
	free := s.free
	s.free = false
	return free && o == pod.Failed
}

func (s *state) threshold() int32 {
	if s.last == pod.Passed {
		return s.spec.SuccessThreshold
	}
	return s.spec.FailureThreshold
}

// weigh tells what an answer counts as, if it does.
func weigh(a pod.Answer) (outcome pod.Outcome, counts bool) {
	switch {
	case a.Err != nil:
		return "", false
	case a.Outcome == pod.Passed, a.Outcome == pod.Warned:
		return pod.Passed, true
	}
	return pod.Failed, true
}

// say tells people of what is not well.
func (s *state) say(a pod.Answer) []effect {
	n := note{kind: corev1.EventTypeWarning, reason: "Unhealthy"}
	switch {
	case a.Err != nil:
		n.message = fmt.Sprintf("%s probe errored and resulted in %s state: %v", s.kind, a.Outcome, a.Err)
	case a.Outcome == pod.Warned:
		n.reason, n.message = "ProbeWarning", fmt.Sprintf("%s probe warning: %s", s.kind, a.Output)
	case a.Outcome == pod.Failed:
		n.message = fmt.Sprintf("%s probe failed: %s", s.kind, a.Output)
	default:
		return nil
	}
	return []effect{n}
}
