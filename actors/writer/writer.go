// Package writer sends one actor's writes to the registry: one commit at a
// time, asked again under the same ID until the answer is certain.
package writer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

const (
	silence = 10 * time.Second       // an answer that takes longer was lost with whoever owed it
	hush    = time.Second            // the same of a Sync: nothing can be done before its answer, and asking costs little
	backoff = 500 * time.Millisecond // after "try again"
	absence = 50 * time.Millisecond  // while there is no registry: it is about to start, or to start again
)

// Writer is one actor instance's way to write. Make it with New in the actor's
// producer, and hand it the actor's *command.Committed and Retry messages.
type Writer struct {
	registry func() *actor.PID
	work     mailbox.Work
	start    string
	ordinal  uint64
	pending  *command.Commit
	syncing  bool
	forget   context.CancelFunc // the Retry that is set
}

// Retry is what a Writer tells its actor when a commit has to be asked again.
type Retry struct{ ID string }

// New returns a Writer that asks whoever registry names at the time.
func New(registry func() *actor.PID, work mailbox.Work) *Writer {
	return &Writer{registry: registry, work: work}
}

// Sync asks the registry to answer Synced once all that was written before has
// settled. Hand Synced the answer.
func (w *Writer) Sync(ctx actor.Context) {
	w.syncing = true
	ctx.Request(w.registry(), &command.Sync{})
	w.wait(ctx, hush, "")
}

// Synced takes the answer to Sync. It returns false when none is awaited: that
// was asked twice, and the actor has begun.
func (w *Writer) Synced() bool {
	if !w.syncing {
		return false
	}
	w.syncing = false
	w.forget()
	return true
}

// Busy tells whether an answer is awaited.
func (w *Writer) Busy() bool { return w.pending != nil || w.syncing }

// Commit sends changes. The actor must not be Busy.
func (w *Writer) Commit(ctx actor.Context, changes ...command.Change) {
	if w.Busy() {
		panic(fmt.Errorf("%s: an answer is already awaited", ctx.Self().Id))
	}
	if w.start == "" {
		w.start = string(w.work.NewUID())[:8]
	}
	w.ordinal++
	w.pending = &command.Commit{
		ID:      fmt.Sprintf("%s#%s#%d", ctx.Self().Id, w.start, w.ordinal),
		Actor:   ctx.Self().Id,
		Changes: changes,
	}
	w.ask(ctx)
}

// Committed takes an answer. It returns false while there is nothing for the
// actor to do: the answer is an old one, or the commit is asked again. An error
// is final: nothing was written, and the actor may decide anew.
func (w *Writer) Committed(ctx actor.Context, m *command.Committed) (done *command.Commit, results []command.Result, err error, ok bool) {
	if w.pending == nil || m.ID != w.pending.ID {
		return nil, nil, nil, false
	}
	if errors.Is(m.Err, journal.ErrUnknownOutcome) || apierrors.IsTooManyRequests(m.Err) || apierrors.IsServiceUnavailable(m.Err) {
		w.wait(ctx, backoff, m.ID)
		return nil, nil, nil, false
	}
	done, w.pending = w.pending, nil
	w.forget()
	return done, m.Results, m.Err, true
}

// Retry asks again if the commit still waits for its answer.
func (w *Writer) Retry(ctx actor.Context, m Retry) {
	switch {
	case w.syncing && m.ID == "":
		w.Sync(ctx)
	case w.pending != nil && w.pending.ID == m.ID:
		w.ask(ctx)
	}
}

// Unheard takes word that nobody was there to take a request; of which one it
// does not say. In case it was the registry's, that is asked again soon: twice
// does no harm.
func (w *Writer) Unheard(ctx actor.Context, _ *actor.DeadLetterResponse) {
	if !w.Busy() {
		return
	}
	id := ""
	if w.pending != nil {
		id = w.pending.ID
	}
	w.wait(ctx, absence, id)
}

func (w *Writer) ask(ctx actor.Context) {
	ctx.Request(w.registry(), w.pending)
	w.wait(ctx, silence, w.pending.ID)
}

func (w *Writer) wait(ctx actor.Context, d time.Duration, id string) {
	if w.forget != nil {
		w.forget()
	}
	w.forget = w.work.After(ctx, d, Retry{id})
}
