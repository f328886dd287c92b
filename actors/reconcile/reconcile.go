// Package reconcile is the shell that the control tree's actors share: it looks
// when something changed, lets a pure Decider compare wish and fact, and sends
// what it decides to the registry, one commit at a time.
//
//	Supervisor  control, or the family of its kind
//	Accepts     Look *command.Synced *command.Committed writer.Retry
//	Emits       *command.Sync *command.Commit to the registry
//	On restart  waits until its predecessor's writes have settled, then looks afresh
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/writer"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// Decider holds an actor's state and decides. It reads no clock and does no I/O
// beyond reading the hub.
type Decider interface {
	// Decide returns what to write now.
	Decide(now time.Time) Decision
	// Answered tells what became of the changes of the last decision, or err
	// when none of them was written. Decide is called again afterwards.
	Answered(done []command.Change, results []command.Result, err error)
}

// Decision is what a Decider wants.
type Decision struct {
	Changes []command.Change
	Again   time.Duration // look again after this time, if not 0
}

// Unless takes back the changes if was and is are equal: nothing to write.
func (d Decision) Unless(was, is api.Object) Decision {
	if equality.Semantic.DeepEqual(was, is) {
		d.Changes = nil
	}
	return d
}

// Follower is a Decider that hears of every change of some resources itself.
type Follower interface {
	Decider
	// Reset begins anew from what the hub holds: at start, and when changes were missed.
	Reset()
	// Changed tells what happened since, in order.
	Changed([]journal.Changed)
}

// Deps is what every such actor needs.
type Deps struct {
	Hub      *journal.Hub
	Registry func() *actor.PID
	Kernel   mailbox.Kernel
	Log      *slog.Logger
}

// Look asks the actor to compare wish and fact again.
type Look struct{}

// New returns what spawns an actor that does what a fresh decider decides. A
// decider that is a Follower follows resources.
func New(d Deps, decider func(work mailbox.Work) Decider, resources ...string) actor.Producer {
	return func() actor.Actor {
		work := d.Kernel.New()
		return &reconciler{deps: d, decider: decider(work), resources: resources, work: work, writer: writer.New(d.Registry, work)}
	}
}

type reconciler struct {
	deps      Deps
	decider   Decider
	resources []string
	work      mailbox.Work
	writer    *writer.Writer
	cursor    *journal.Cursor
	again     context.CancelFunc
	failures  int
}

// What a reconciler tells itself.
type (
	woken struct{}
	timed struct{}
)

// Receive implements [actor.Actor].
func (r *reconciler) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		r.writer.Sync(ctx)
	case *command.Synced:
		if r.writer.Synced() {
			r.follow(ctx)
			r.look(ctx)
		}
	case Look, timed:
		r.look(ctx)
	case woken:
		r.pull(ctx)
		r.look(ctx)
	case *command.Committed:
		r.answered(ctx, m)
	case writer.Retry:
		r.writer.Retry(ctx, m)
	case *actor.Stopping, *actor.Restarting:
		r.work.Cancel()
		if r.cursor != nil {
			r.cursor.Close()
		}
	case *actor.DeadLetterResponse: // the registry is being restarted
		r.writer.Unheard(ctx, m)
	case actor.SystemMessage, actor.AutoReceiveMessage:
	default:
		r.deps.Log.Warn("unknown message", "actor", ctx.Self().Id, "message", fmt.Sprintf("%T", m))
	}
}

// follow subscribes a Follower, or begins anew.
func (r *reconciler) follow(ctx actor.Context) {
	f, ok := r.decider.(Follower)
	if !ok {
		return
	}
	if r.cursor != nil {
		r.cursor.Close()
	}
	self, root := ctx.Self(), ctx.ActorSystem().Root
	r.cursor = r.deps.Hub.Subscribe(r.deps.Hub.Seq(), func() { root.Send(self, woken{}) }, r.resources...)
	f.Reset()
}

const pullMax = 1000

// pull hands a Follower the changes that it has not heard of.
func (r *reconciler) pull(ctx actor.Context) {
	if r.cursor == nil {
		return
	}
	for {
		changes, _, err := r.cursor.Next(pullMax)
		if errors.Is(err, journal.ErrGone) {
			r.follow(ctx)
			return
		}
		if err != nil {
			panic(fmt.Errorf("read changes: %w", err))
		}
		r.decider.(Follower).Changed(changes)
		if len(changes) < pullMax {
			return
		}
	}
}

func (r *reconciler) look(ctx actor.Context) {
	if r.writer.Busy() {
		return // the answer brings us back
	}
	r.later(ctx, 0)
	d := r.decider.Decide(r.work.Now())
	if len(d.Changes) > 0 {
		r.writer.Commit(ctx, d.Changes...)
		return
	}
	r.later(ctx, d.Again)
}

// later sets when to look again by itself; 0 is never.
func (r *reconciler) later(ctx actor.Context, d time.Duration) {
	if r.again != nil {
		r.again()
		r.again = nil
	}
	if d > 0 {
		r.again = r.work.After(ctx, d, timed{})
	}
}

const (
	backoffBase = 50 * time.Millisecond
	backoffMax  = 30 * time.Second
)

func (r *reconciler) answered(ctx actor.Context, m *command.Committed) {
	done, results, err, ok := r.writer.Committed(ctx, m)
	if !ok {
		return
	}
	failed := err != nil
	for i, result := range results {
		failed = failed || result.Err != nil && done.Changes[i].Key.Resource != "events"
	}
	r.decider.Answered(done.Changes, results, err)
	if !failed {
		r.failures = 0
		r.look(ctx)
		return
	}
	delay := min(backoffBase<<min(r.failures, 16), backoffMax)
	r.failures++
	r.later(ctx, delay)
}

// Object is what a record holds, nil without one. A record that cannot be
// decoded is a broken invariant.
func Object(record *journal.Record) api.Object {
	if record == nil {
		return nil
	}
	object, err := record.Object()
	if err != nil {
		panic(fmt.Errorf("read %s: %w", record.Key, err))
	}
	return object
}

// Lookup reads the hub by key; nil for what is not there.
func Lookup(hub *journal.Hub) func(api.Key) api.Object {
	return func(key api.Key) api.Object {
		record, _ := hub.Get(key)
		return Object(record)
	}
}
