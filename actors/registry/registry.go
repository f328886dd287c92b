// Package registry orders all writes of the cluster and puts them into the
// journal in batches: while one batch is on its way to the disk, the commands
// that arrive wait, and the next batch takes them all.
//
//	Supervisor  control: first of a rest-for-one group
//	Accepts     *command.Commit *command.Sync
//	Emits       replies *command.Committed *command.Synced
//	On restart  answers what waited with "outcome unknown" (the same ID asked again is answered rightly), then lets the journal settle before it takes more
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// Config is what a Registry works with.
type Config struct {
	Journal journal.Journal
	Epoch   journal.Epoch // the reign that this tree serves
	Seal    func(key api.Key, value []byte) []byte
	PodCIDR netip.Prefix // all pods of the cluster
	Kernel  mailbox.Kernel
	Log     *slog.Logger
}

// Registry is the actor.
type Registry struct {
	config   Config
	work     mailbox.Work
	inFlight *batch
	settling bool // the journal's barrier is awaited
	gathers  bool // those just answered are given a moment to ask again
	waiting  []request
}

// request is a command and who waits for its answer.
type request struct {
	commit *command.Commit // nil: a Sync
	sender *actor.PID
	tight  bool // the disk is full: only what frees room is carried out
}

// New returns what spawns a Registry.
func New(c Config) actor.Producer {
	return func() actor.Actor { return &Registry{config: c, work: c.Kernel.New()} }
}

// What a Registry tells itself.
type (
	settled  struct{ err error }
	proposed struct{ err error }
	unsettle struct{}
	gathered struct{}
)

const (
	waitingMax   = 1024
	settleAgain  = 100 * time.Millisecond
	gatherTime   = 100 * time.Microsecond // far less than a disk's sync
	retryAfter   = 1                      // seconds, told to clients that get 429
	noRoomAdvice = "free space on the disk that holds the journal, or delete objects"
)

// Receive implements [actor.Actor].
func (r *Registry) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		r.settle(ctx)
	case *command.Commit:
		r.take(ctx, request{commit: m, sender: ctx.Sender()})
	case *command.Sync:
		r.take(ctx, request{sender: ctx.Sender()})
	case settled:
		r.settled(ctx, m.err)
	case unsettle:
		r.settle(ctx)
	case gathered:
		r.gathers = false
		r.next(ctx)
	case proposed:
		r.proposed(ctx, m.err)
	case *actor.Stopping, *actor.Restarting:
		r.work.Cancel()
		r.abandon(ctx)
	case actor.SystemMessage, actor.AutoReceiveMessage:
	default:
		r.config.Log.Warn("unknown message", "actor", ctx.Self().Id, "message", fmt.Sprintf("%T", m))
	}
}

// take queues a request and starts a batch if none is under way.
func (r *Registry) take(ctx actor.Context, q request) {
	if len(r.waiting) >= waitingMax && q.commit != nil {
		answer(ctx, q, &command.Committed{ID: q.commit.ID, Err: apierrors.NewTooManyRequests("too many writes wait for the journal", retryAfter)})
		return
	}
	if q.commit == nil && r.awaits(q.sender) {
		return // asked again, and the answer to the first is the same
	}
	r.waiting = append(r.waiting, q)
	r.next(ctx)
}

// awaits tells whether the last that sender asked, and still waits for, is a Sync.
func (r *Registry) awaits(sender *actor.PID) bool {
	for _, q := range slices.Backward(r.waiting) {
		if sender != nil && q.sender != nil && q.sender.Equal(sender) {
			return q.commit == nil
		}
	}
	return false
}

// next sends all that waits, up to a batch's size, on its way.
func (r *Registry) next(ctx actor.Context) {
	for r.inFlight == nil && !r.settling && !r.gathers && len(r.waiting) > 0 {
		b := r.prepare()
		if len(b.entry.Changes) == 0 && len(b.entry.Commands) == 0 {
			r.reply(ctx, b) // nothing changes: reads of the present, refusals, repeated commands
			continue
		}
		r.inFlight = b
		journal, entry := r.config.Journal, b.entry
		r.work.Go(ctx, func(c context.Context) any { return proposed{journal.Propose(c, entry)} })
	}
}

func (r *Registry) proposed(ctx actor.Context, err error) {
	b := r.inFlight
	r.inFlight = nil
	switch {
	case err == nil:
		r.reply(ctx, b)
		if len(b.requests) > 1 {
			// Many write: without this the next batch would leave with the first of
			// those just answered, and the rest would wait for the one after.
			r.gathers = true
			r.work.After(ctx, gatherTime, gathered{})
		}
	case errors.Is(err, journal.ErrRefused):
		// Something entered the journal beside us: look again, then decide anew.
		r.waiting = append(b.requests, r.waiting...)
		r.settle(ctx)
		return
	case errors.Is(err, journal.ErrNoRoom):
		r.noRoom(ctx, b)
	case errors.Is(err, journal.ErrNotLeader):
		r.waiting = append(b.syncs(), r.waiting...)
		b.fail(ctx, apierrors.NewServiceUnavailable("this member no longer leads; try again"))
	case errors.Is(err, journal.ErrUnknownOutcome):
		b.fail(ctx, err)
		r.waiting = append(b.syncs(), r.waiting...)
		r.settle(ctx)
		return
	default:
		b.fail(ctx, fmt.Errorf("%w: %w", journal.ErrUnknownOutcome, err))
		panic(fmt.Errorf("propose: %w", err))
	}
	r.next(ctx)
}

// reply answers everyone; the batch is durable.
func (r *Registry) reply(ctx actor.Context, b *batch) {
	for i, q := range b.requests {
		answer(ctx, q, b.answers[i])
	}
	r.repeat(ctx, func(id string) any {
		if i, ok := b.ids[id]; ok {
			return b.answers[i]
		}
		return nil
	})
}

// noRoom has the commands of a batch looked at again, without the changes that
// ask for room. What does not fit even so is refused.
func (r *Registry) noRoom(ctx actor.Context, b *batch) {
	if b.tight {
		b.fail(ctx, insufficientStorage())
		r.repeat(ctx, func(id string) any {
			if has(b.ids, id) && b.certain[id] == nil {
				return &command.Committed{ID: id, Err: insufficientStorage()}
			}
			return nil
		})
		r.waiting = append(b.syncs(), r.waiting...)
		return
	}
	for i := range b.requests {
		b.requests[i].tight = b.requests[i].commit != nil
	}
	r.waiting = append(b.requests, r.waiting...)
}

// repeat gives those that ask the same again, while it was under way, the
// answer that given has for their ID: what was refused must not be carried out
// after all.
func (r *Registry) repeat(ctx actor.Context, given func(id string) any) {
	r.waiting = slices.DeleteFunc(r.waiting, func(q request) bool {
		if q.commit == nil || q.commit.ID == "" {
			return false
		}
		m := given(q.commit.ID)
		if m != nil {
			answer(ctx, q, m)
		}
		return m != nil
	})
}

// settle waits until the journal has applied all that was in flight before.
func (r *Registry) settle(ctx actor.Context) {
	r.settling = true
	j := r.config.Journal
	r.work.Go(ctx, func(c context.Context) any { return settled{j.Barrier(c)} })
}

func (r *Registry) settled(ctx actor.Context, err error) {
	if err != nil {
		r.work.After(ctx, settleAgain, unsettle{})
		return
	}
	r.settling = false
	r.next(ctx)
}

// abandon tells everyone who waits that the outcome is not known.
func (r *Registry) abandon(ctx actor.Context) {
	if r.inFlight != nil {
		r.inFlight.fail(ctx, journal.ErrUnknownOutcome)
		r.inFlight = nil
	}
	for _, q := range r.waiting {
		if q.commit != nil {
			answer(ctx, q, &command.Committed{ID: q.commit.ID, Err: journal.ErrUnknownOutcome})
		}
	}
	r.waiting = nil
}

func answer(ctx actor.Context, q request, m any) {
	if q.sender != nil {
		ctx.Send(q.sender, m)
	}
}
