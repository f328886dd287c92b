package probe

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/pod"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func examine(kind pod.ProbeKind, change ...func(*corev1.Probe)) pod.Examine {
	p := &corev1.Probe{PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3}
	for _, f := range change {
		f(p)
	}
	c := &corev1.Container{Name: "c", StartupProbe: p, LivenessProbe: p, ReadinessProbe: p}
	return pod.Examine{Kind: kind, Since: noon, Target: pod.Target{ID: "u1.c.0", Addr: "10.0.0.1", Container: c}}
}

func line(todo []effect) string {
	var parts []string
	for _, e := range todo {
		switch e := e.(type) {
		case forget:
			parts = append(parts, "forget")
		case ask:
			parts = append(parts, "ask")
		case wait:
			parts = append(parts, "wait "+e.delay.String())
		case tell:
			parts = append(parts, fmt.Sprintf("tell %t", e.healthy))
		case note:
			parts = append(parts, e.reason)
		}
	}
	return strings.Join(parts, ", ")
}

func expect(t *testing.T, what string, todo []effect, want string) {
	t.Helper()
	if got := line(todo); got != want {
		t.Errorf("%s: %s; want %s", what, got, want)
	}
}

func TestWhenItBegins(t *testing.T) {
	delayed := func(p *corev1.Probe) { p.InitialDelaySeconds = 25 }
	for _, c := range []struct {
		name string
		of   pod.Examine
		now  time.Time
		want string
	}{
		{"readiness, at once", examine(pod.Readiness), noon, "forget, wait 0s"},
		{"start-up, at once", examine(pod.Startup), noon, "forget, wait 0s"},
		{"liveness, after a period", examine(pod.Liveness), noon, "forget, wait 10s"},
		{"after its delay", examine(pod.Readiness, delayed), noon, "forget, wait 25s"},
		{"after its delay, liveness too", examine(pod.Liveness, delayed), noon, "forget, wait 25s"},
		{"after what is left of it", examine(pod.Readiness, delayed), noon.Add(20 * time.Second), "forget, wait 5s"},
		{"of one that has long run", examine(pod.Readiness, delayed), noon.Add(time.Hour), "forget, wait 0s"},
		{"of one that runs since tomorrow, by a clock that was set back", examine(pod.Readiness, delayed), noon.Add(-24 * time.Hour), "forget, wait 25s"},
	} {
		expect(t, c.name, new(state).examine(c.of, c.now), c.want)
	}
}

func TestTheProbesOfWhatIsAdoptedDoNotAskAtOnce(t *testing.T) {
	seen := map[time.Duration]bool{}
	for i := range 100 {
		m := examine(pod.Readiness)
		m.Adopted, m.Target.ID = true, fmt.Sprintf("u%d.c.0", i)
		todo := new(state).examine(m, noon.Add(time.Hour))
		w := todo[len(todo)-1].(wait)
		if w.delay < 0 || w.delay >= 10*time.Second {
			t.Errorf("waits %s of a period of 10s", w.delay)
		}
		seen[w.delay/time.Second] = true
	}
	if len(seen) != 10 {
		t.Errorf("they begin in %d of 10 seconds", len(seen))
	}
	m := examine(pod.Readiness, func(p *corev1.Probe) { p.InitialDelaySeconds = 30 })
	m.Adopted = true
	expect(t, "the delay stands", new(state).examine(m, noon.Add(10*time.Second)), "forget, wait 20s")
}

// begun is a state that waits for its first answer, and when that is.
func begun(m pod.Examine) (*state, time.Time) {
	s := new(state)
	todo := s.examine(m, noon)
	return s, noon.Add(todo[len(todo)-1].(wait).delay)
}

func TestThresholds(t *testing.T) {
	thresholds := func(success, failure int32) func(*corev1.Probe) {
		return func(p *corev1.Probe) { p.SuccessThreshold, p.FailureThreshold = success, failure }
	}
	const ok, warn, bad, odd = "wait 10s", "ProbeWarning, wait 10s", "Unhealthy, wait 10s", "Unhealthy, wait 10s"
	for _, c := range []struct {
		name    string
		of      pod.Examine
		answers string // one letter each: passed, warned, failed, unknown, error
		want    []string
	}{
		{"readiness comes and goes", examine(pod.Readiness), "ffpfffp", []string{bad, bad, "tell true, " + ok, bad, bad, "Unhealthy, tell false, " + ok, "tell true, " + ok}},
		{"what passes is told each time", examine(pod.Readiness), "pp", []string{"tell true, " + ok, "tell true, " + ok}},
		{"twice to be ready", examine(pod.Readiness, thresholds(2, 1)), "pfpp", []string{ok, "Unhealthy, tell false, " + ok, ok, "tell true, " + ok}},
		{"a warning passes", examine(pod.Readiness, thresholds(2, 1)), "wp", []string{warn, "tell true, " + ok}},
		{"what is unknown has failed, and says nothing", examine(pod.Readiness, thresholds(1, 2)), "uu", []string{ok, "tell false, " + ok}},
		{"an error counts for nothing", examine(pod.Readiness, thresholds(1, 2)), "fef", []string{bad, odd, "Unhealthy, tell false, " + ok}},
		{"liveness ends with its failure", examine(pod.Liveness, thresholds(1, 2)), "pfpff", []string{"tell true, " + ok, bad, "tell true, " + ok, bad, "Unhealthy, tell false"}},
		{"start-up ends with its success", examine(pod.Startup), "fffp", []string{bad, bad, bad, "tell true"}},
		{"start-up has all of its periods", examine(pod.Startup), "ffff", []string{bad, bad, bad, "Unhealthy, tell false"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, now := begun(c.of)
			for i, letter := range c.answers {
				expect(t, fmt.Sprintf("due %d", i), s.due(s.turn), "ask")
				expect(t, fmt.Sprintf("answer %d", i), s.answered(answered{s.turn, answerOf(letter)}, now), c.want[i])
				now = now.Add(10 * time.Second)
			}
		})
	}
}

func answerOf(letter rune) pod.Answer {
	switch letter {
	case 'p':
		return pod.Answer{Outcome: pod.Passed}
	case 'w':
		return pod.Answer{Outcome: pod.Warned, Output: "moved"}
	case 'f':
		return pod.Answer{Outcome: pod.Failed, Output: "refused"}
	case 'e':
		return pod.Answer{Outcome: pod.Unknown, Err: errors.New("no such port")}
	}
	return pod.Answer{Outcome: pod.Unknown}
}

func TestWhatPeopleAreTold(t *testing.T) {
	s, now := begun(examine(pod.Readiness))
	for letter, want := range map[rune]string{
		'f': "Readiness probe failed: refused",
		'w': "Readiness probe warning: moved",
		'e': "Readiness probe errored and resulted in unknown state: no such port",
	} {
		if n := s.answered(answered{s.turn, answerOf(letter)}, now)[0].(note); n.message != want || n.kind != corev1.EventTypeWarning {
			t.Errorf("%c: %+v", letter, n)
		}
	}
}

func TestAPeriodIsFromQuestionToQuestion(t *testing.T) {
	s, now := begun(examine(pod.Readiness))
	s.due(s.turn)
	expect(t, "after 3s", s.answered(answered{s.turn, answerOf('p')}, now.Add(3*time.Second)), "tell true, wait 7s")
	expect(t, "after more than a period", s.answered(answered{s.turn, answerOf('p')}, now.Add(24*time.Second)), "tell true, wait 0s")
	expect(t, "the next", s.answered(answered{s.turn, answerOf('p')}, now.Add(25*time.Second)), "tell true, wait 9s")
}

func TestWhatIsLateMeansNothing(t *testing.T) {
	s, now := begun(examine(pod.Readiness))
	old := s.turn
	expect(t, "rest", s.rest(), "forget")
	expect(t, "its timer", s.due(old), "")
	expect(t, "its answer", s.answered(answered{old, answerOf('f')}, now), "")
	s.examine(examine(pod.Readiness), noon)
	expect(t, "an old answer to a new question", s.answered(answered{old, answerOf('f')}, now), "")

	s, now = begun(examine(pod.Liveness, func(p *corev1.Probe) { p.FailureThreshold = 1 }))
	last := s.turn
	s.answered(answered{last, answerOf('f')}, now)
	expect(t, "an answer twice", s.answered(answered{last, answerOf('f')}, now), "")

	none := examine(pod.Readiness)
	none.Target.Container = &corev1.Container{Name: "c"}
	expect(t, "no such probe", s.examine(none, noon), "forget")
}

// TestTheNextContainerBeginsAnew: what the last one answered does not count.
func TestTheNextContainerBeginsAnew(t *testing.T) {
	s, now := begun(examine(pod.Readiness, func(p *corev1.Probe) { p.FailureThreshold = 2 }))
	s.answered(answered{s.turn, answerOf('f')}, now)
	m := examine(pod.Readiness, func(p *corev1.Probe) { p.FailureThreshold = 2 })
	m.Target.ID = "u1.c.1"
	s.examine(m, now)
	expect(t, "its first failure", s.answered(answered{s.turn, answerOf('f')}, now), "Unhealthy, wait 10s")
}
