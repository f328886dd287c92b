package probe

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/actors/actortest"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// port answers by a function, and takes a while for it.
type port struct {
	mu     sync.Mutex
	takes  time.Duration
	answer pod.Answer
	asked  int
	ended  int // questions that were given up
}

func (p *port) set(takes time.Duration, a pod.Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takes, p.answer = takes, a
}

func (p *port) count() (asked, ended int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked, p.ended
}

func (p *port) Probe(ctx context.Context, _ pod.Target, _ *corev1.Probe) pod.Answer {
	p.mu.Lock()
	p.asked++
	takes, answer := p.takes, p.answer
	p.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		p.mu.Lock()
		p.ended++
		p.mu.Unlock()
	}
	return answer
}

func run(t *testing.T, body func(k *actortest.Kit, p *port)) {
	p := &port{answer: pod.Answer{Outcome: pod.Passed}}
	actortest.Run(t, New(Config{Kernel: mailbox.Real(), Port: p}), func(k *actortest.Kit) {
		k.Start()
		if got := k.Heard(); len(got) != 1 || !strings.HasPrefix(got[0], "pod.Hello") {
			t.Errorf("began with %q", got)
		}
		body(k, p)
	})
}

// health is what the parent heard of it; notes are left out.
func health(k *actortest.Kit) (all []bool) {
	for _, m := range k.Messages("") {
		if h, ok := m.(pod.Health); ok {
			all = append(all, h.Healthy)
		}
	}
	return all
}

func TestAsksEachPeriod(t *testing.T) {
	run(t, func(k *actortest.Kit, p *port) {
		k.Tell(examineNow(pod.Readiness))
		k.Advance(time.Second)
		if got := health(k); len(got) != 1 || !got[0] {
			t.Errorf("heard %v", got)
		}
		p.set(0, pod.Answer{Outcome: pod.Failed, Output: "refused"})
		k.Advance(25 * time.Second)
		if asked, _ := p.count(); asked != 3 {
			t.Errorf("asked %d times", asked)
		}
		k.Advance(10 * time.Second)
		if got := health(k); len(got) != 1 || got[0] {
			t.Errorf("heard %v", got)
		}
		k.Tell(pod.Rest{})
		before, _ := p.count()
		k.Advance(time.Hour)
		if asked, _ := p.count(); asked != before {
			t.Errorf("asked %d times while it rests", asked-before)
		}
	})
}

func TestRestGivesTheQuestionUp(t *testing.T) {
	run(t, func(k *actortest.Kit, p *port) {
		p.set(time.Hour, pod.Answer{Outcome: pod.Failed})
		k.Tell(examineNow(pod.Readiness))
		k.Advance(time.Second)
		k.Tell(pod.Rest{})
		k.Advance(0)
		if asked, ended := p.count(); asked != 1 || ended != 1 {
			t.Errorf("%d questions, %d given up", asked, ended)
		}
		if got := k.Heard(); len(got) > 0 {
			t.Errorf("heard %q", got)
		}
	})
}

func TestARestartAsksTheParent(t *testing.T) {
	run(t, func(k *actortest.Kit, p *port) {
		k.Tell(examineNow(pod.Readiness))
		k.Advance(time.Second)
		k.Heard()
		k.Crash()
		k.Advance(time.Second)
		if got := k.Heard(); len(got) != 1 || !strings.HasPrefix(got[0], "pod.Hello") {
			t.Errorf("heard %q", got)
		}
		before, _ := p.count()
		k.Advance(time.Hour)
		if asked, _ := p.count(); asked != before {
			t.Errorf("asked %d times before it was told to", asked-before)
		}
	})
}

// examineNow is of a container that starts now.
func examineNow(kind pod.ProbeKind) pod.Examine {
	m := examine(kind)
	m.Since = time.Now()
	return m
}
