package usage_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/actortest"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/usage"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/host"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// machine uses two cores.
type machine struct{ booted time.Time }

func (m machine) Usage(context.Context) (host.Usage, error) {
	return host.Usage{CPU: 2 * time.Since(m.booted), Memory: 1 << 30, At: time.Now()}, nil
}

func run(t *testing.T, body func(k *actortest.Kit, r *fake.Runtime)) {
	t.Helper()
	var r *fake.Runtime
	var c usage.Config
	actortest.Run(t, func() actor.Actor { return usage.New(c)() }, func(k *actortest.Kit) {
		r = fake.New(fake.Options{})
		c = usage.Config{Kernel: mailbox.Real(), Log: slog.New(slog.DiscardHandler), Runtime: r, Host: machine{time.Now()}}
		r.AddImage("busy:1", fake.Behaviour{CPU: 0.25, Memory: 5 << 20})
		k.Play("asker", nil)
		k.Play("other", nil)
		body(k, r)
	})
}

// begin runs a container of the pod u.
func begin(t *testing.T, r *fake.Runtime, name string) {
	t.Helper()
	ctx, of := context.Background(), container.Pod{Namespace: "default", Name: "p", UID: "u"}
	if err := r.Configure(ctx, container.Network{PodCIDR: netip.MustParsePrefix("10.244.0.0/24")}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RunSandbox(ctx, container.SandboxSpec{ID: "u", Pod: of}); err != nil {
		t.Fatal(err)
	}
	if err := r.Create(ctx, container.Spec{ID: name, Sandbox: "u", Pod: of, Name: name, Image: "busy:1"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(ctx, name); err != nil {
		t.Fatal(err)
	}
}

func TestItAnswersWithRates(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		begin(t, r, "c")
		k.Start()
		first := k.Ask(pod.AskUsage{}).(pod.UsageOf)
		if first.Err != nil || len(first.Usage.Pods) != 0 || first.Usage.Node.Window != 0 {
			t.Errorf("after one look: %+v", first)
		}
		k.Advance(20 * time.Second)
		u := k.Ask(pod.AskUsage{}).(pod.UsageOf)
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		if n := u.Usage.Node; n.CPU != 2_000_000_000 || n.Memory != 1<<30 || n.Window < 15*time.Second {
			t.Errorf("machine: %+v", n)
		}
		p := u.Usage.Pods["u"]
		if len(p.Containers) != 1 || p.Containers[0].Name != "c" || p.Containers[0].CPU != 250_000_000 || p.Containers[0].Memory != 5<<20 {
			t.Errorf("pod: %+v", p)
		}
		if age := time.Since(p.At); age < 0 || age >= 15*time.Second {
			t.Errorf("the answer is %s old", age)
		}
	})
}

func TestItLooksMoreOftenWhileSomebodyAsks(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		k.Start()
		seen := 0
		looks := func() (n int) {
			n, seen = r.Calls("Usage")-seen, r.Calls("Usage")
			return n
		}
		if n := looks(); n != 1 {
			t.Errorf("%d looks at the start", n)
		}
		k.Advance(3 * time.Minute)
		if n := looks(); n != 3 {
			t.Errorf("%d looks in three minutes in which nobody asks", n)
		}
		k.Advance(30 * time.Second)
		k.Ask(pod.AskUsage{}) // what is known is old by now
		if n := looks(); n != 1 {
			t.Errorf("%d looks for the first question", n)
		}
		k.Ask(pod.AskUsage{})
		if n := looks(); n != 0 {
			t.Errorf("%d looks for a question right after another", n)
		}
		k.Advance(time.Minute)
		if n := looks(); n != 4 {
			t.Errorf("%d looks in the minute after a question", n)
		}
		k.Advance(5 * time.Minute)
		if n := looks(); n != 5 {
			t.Errorf("%d looks in five minutes after that", n)
		}
	})
}

func TestAllWhoAskHearOneLook(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		k.Advance(20 * time.Second)
		before := r.Calls("Usage")
		for _, who := range []string{"asker", "other", "asker"} {
			k.Root().RequestWithCustomSender(k.PID(actortest.Path), pod.AskUsage{}, k.PID(who))
		}
		k.Advance(0)
		if a, o := len(k.Messages("asker")), len(k.Messages("other")); a != 2 || o != 1 {
			t.Errorf("answers: %d and %d", a, o)
		}
		if n := r.Calls("Usage") - before; n != 1 {
			t.Errorf("%d looks", n)
		}
	})
}

func TestAFailureIsAnAnswerAndTheNextQuestionTriesAgain(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		k.Start()
		k.Advance(20 * time.Second)
		r.Inject(fake.Fault{Method: "Usage", Err: container.ErrGone})
		if u := k.Ask(pod.AskUsage{}).(pod.UsageOf); !errors.Is(u.Err, container.ErrGone) || u.Usage != nil {
			t.Errorf("%+v", u)
		}
		if u := k.Ask(pod.AskUsage{}).(pod.UsageOf); u.Err != nil || u.Usage.Node.Window != 20*time.Second {
			t.Errorf("%+v", u)
		}
	})
}

func TestARestartMeasuresAnew(t *testing.T) {
	run(t, func(k *actortest.Kit, _ *fake.Runtime) {
		k.Advance(20 * time.Second)
		k.Crash()
		if u := k.Ask(pod.AskUsage{}).(pod.UsageOf); u.Err != nil || u.Usage.Node.Window != 0 {
			t.Errorf("%+v", u)
		}
	})
}
