// Package actortest runs one actor under a scripted parent, among played
// actors, in virtual time.
package actortest

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/supervise"
)

// Path is where the actor under test stands.
const Path = "test/parent/actor"

// Kit drives the actor under test and records what it sends.
type Kit struct {
	t        *testing.T
	producer actor.Producer
	system   *actor.ActorSystem
	tree     *supervise.Running
	played   []*actor.PID

	mu       sync.Mutex
	heard    map[string][]any // by whom: "" is the parent
	dead     []string
	expected map[string]int // failures that Crash made, by path
}

// Run hands body a Kit for the actor that producer makes, inside a time bubble
// (testing/synctest). The test fails if the actor or a child of it panics
// unasked, if a message reaches nobody, and if goroutines are left behind.
//
// The actor starts at Start, or at the first Tell, Ask, Advance or Crash, so
// that body can first play the actors that it asks when it starts.
func Run(t *testing.T, producer actor.Producer, body func(*Kit)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := &Kit{t: t, producer: producer, heard: map[string][]any{}, expected: map[string]int{}}
		k.system = supervise.NewSystem(k.Log())
		k.system.EventStream.Subscribe(k.deadLetter)
		body(k)
		if k.tree != nil {
			k.tree.Stop()
		}
		for _, pid := range k.played {
			_ = k.system.Root.StopFuture(pid).Wait()
		}
		k.system.Shutdown()
		time.Sleep(2 * time.Second) // the library counts dead letters for a second
		for _, line := range k.dead {
			t.Error(line)
		}
	})
}

// Play lets receive stand for the actor at path ("control/registry"). It is
// called with the messages that the actor under test sends there; nil only
// records them.
func (k *Kit) Play(path string, receive func(ctx actor.Context)) {
	k.t.Helper()
	pid, err := k.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case actor.SystemMessage, actor.AutoReceiveMessage:
		default:
			k.hear(path, m)
			if receive != nil {
				receive(ctx)
			}
		}
	}, actor.WithDispatcher(dispatcher{k})), path)
	if err != nil {
		k.t.Fatalf("play %s: %v", path, err)
	}
	k.played = append(k.played, pid)
	synctest.Wait()
}

// Start starts the actor and waits until all is quiet.
func (k *Kit) Start() {
	k.t.Helper()
	if k.tree != nil {
		return
	}
	parent := func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			switch m := ctx.Message().(type) {
			case *actor.Started:
				if _, err := supervise.Spawn(ctx, supervise.Leaf("actor", "under test", k.producer)); err != nil {
					panic(err)
				}
			case actor.SystemMessage, actor.AutoReceiveMessage:
			default:
				k.hear("", m)
			}
		})
	}
	tree, err := supervise.Start(k.system,
		supervise.Group("test", supervise.OneForOne, supervise.Budget{},
			supervise.Leaf("parent", "scripted", parent)),
		supervise.Options{Log: k.Log(), Dispatcher: dispatcher{k}, Failed: k.failed, Fell: func(err error) { k.t.Errorf("escalated past the parent: %v", err) }})
	if err != nil {
		k.t.Fatal(err)
	}
	k.tree = tree
	synctest.Wait()
}

// Tell sends the actor m and waits until all is quiet.
func (k *Kit) Tell(m any) { k.t.Helper(); k.TellTo(Path, m) }

// TellTo sends m to the actor at path, a child of the one under test for instance.
func (k *Kit) TellTo(path string, m any) {
	k.t.Helper()
	k.Start()
	k.system.Root.Send(k.system.NewLocalPID(path), m)
	synctest.Wait()
}

// TellFrom sends the actor m as a request of the played actor at path.
func (k *Kit) TellFrom(path string, m any) {
	k.t.Helper()
	k.Start()
	k.system.Root.RequestWithCustomSender(k.PID(Path), m, k.PID(path))
	synctest.Wait()
}

// Ask sends the actor the request m and returns its answer. The test fails if
// there is none until all is quiet.
func (k *Kit) Ask(m any) any {
	k.t.Helper()
	k.Start()
	f := k.system.Root.RequestFuture(k.PID(Path), m, time.Nanosecond)
	synctest.Wait()
	answer, err := f.Result()
	if err != nil {
		k.t.Fatalf("no answer to %T: %v", m, err)
	}
	return answer
}

// Advance lets d of virtual time pass.
func (k *Kit) Advance(d time.Duration) {
	k.t.Helper()
	k.Start()
	k.order()
	time.Sleep(d)
	synctest.Wait()
}

// order puts what the test did before what its caller does: a timer that fires
// in between orders nothing for the race detector.
func (k *Kit) order() {
	k.mu.Lock()
	defer k.mu.Unlock()
}

// dispatcher is the library's own, in order with the test.
type dispatcher struct{ kit *Kit }

// Schedule implements [actor.Dispatcher].
func (d dispatcher) Schedule(run func()) {
	go func() {
		d.kit.order()
		run()
	}()
}

// Throughput implements [actor.Dispatcher].
func (dispatcher) Throughput() int { return 300 }

// Crash makes the actor panic, as troupe actors restart does, and waits until
// its supervisor has restarted it.
func (k *Kit) Crash() { k.t.Helper(); k.CrashAt(Path) }

// CrashAt makes the actor at path panic.
func (k *Kit) CrashAt(path string) {
	k.t.Helper()
	k.Start()
	k.Expect(path)
	if err := k.tree.Fail(path); err != nil {
		k.t.Fatal(err)
	}
	synctest.Wait()
}

// Expect lets the actor at path panic once more without failing the test.
func (k *Kit) Expect(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expected[path]++
}

// Heard returns what the parent was sent since the last call, one line each.
func (k *Kit) Heard() []string {
	var out []string
	for _, m := range k.Messages("") {
		out = append(out, fmt.Sprintf("%T%+v", m, m))
	}
	return out
}

// Messages returns what the played actor at path was sent since the last call;
// of the parent if path is empty.
func (k *Kit) Messages(path string) []any {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.heard[path]
	delete(k.heard, path)
	return out
}

// Actors lists the actor under test (at Path) and those below and above it.
func (k *Kit) Actors() []supervise.Status {
	k.t.Helper()
	k.Start()
	return k.tree.Actors()
}

// PID is the address of the actor at path.
func (k *Kit) PID(path string) *actor.PID { return k.system.NewLocalPID(path) }

// Root sends messages from outside all actors, as a subscription's wake does.
func (k *Kit) Root() *actor.RootContext { return k.system.Root }

// Log logs to the test.
func (k *Kit) Log() *slog.Logger { return slog.New(slog.NewTextHandler(k.t.Output(), nil)) }

func (k *Kit) hear(path string, m any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.heard[path] = append(k.heard[path], m)
}

func (k *Kit) failed(s supervise.Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.expected[s.Path] > 0 {
		k.expected[s.Path]--
		return
	}
	k.t.Errorf("%s panicked at %s: %s\n%s", s.Path, s.LastMessage, s.LastFailure, s.LastStack)
}

// deadLetter notes a message that reached nobody. The library's own are its
// way to find out that an actor is gone.
func (k *Kit) deadLetter(event any) {
	d, ok := event.(*actor.DeadLetterEvent)
	if !ok {
		return
	}
	switch d.Message.(type) {
	case actor.SystemMessage, actor.AutoReceiveMessage, actor.MailboxMessage:
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dead = append(k.dead, fmt.Sprintf("dead letter: %T%+v to %s", d.Message, d.Message, d.PID.GetId()))
}
