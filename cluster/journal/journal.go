// Package journal is the one ordered, durable log that holds all state of a
// cluster. State is its deterministic state machine, Hub lets this machine
// read and watch it, Journal is the port through which batches enter it. The
// adapters are raftlog (hashicorp/raft) and model (seeded, for simulation).
package journal

import (
	"context"
	"errors"

	"github.com/troupe-sh/troupe/api"
)

// Epoch orders the reigns of leaders: restore and recovery raise Incarnation,
// elections raise Term.
type Epoch struct{ Incarnation, Term uint64 }

// Change sets (Value) or deletes (nil Value) one object. The state machine
// numbers changes; the number is the object's resourceVersion, and is not part
// of Value.
type Change struct {
	Key   api.Key
	Value []byte   // api.Encode, sealed for secrets
	Index []string // api.Indexes: "node=n1", "owner=<uid>"
	// Frees says that this change carries a deletion on (the object has a
	// deletionTimestamp), so that it is taken when the disk is nearly full. It
	// is not written.
	Frees bool
}

// Command remembers that a command was carried out, so that asking again
// changes nothing. It is kept for ten minutes of entry time.
type Command struct {
	ID     string
	Result []byte
}

// Entry is one batch: applied as a whole or refused as a whole, equally on
// every server.
type Entry struct {
	Epoch    Epoch
	Base     uint64 // the last sequence number that the proposer knew
	Time     int64  // the proposer's wall clock, Unix nanoseconds; drives the expiry of commands
	Actor    string
	Changes  []Change
	Commands []Command
}

// Frees tells whether e is taken when the disk is nearly full: it sets nothing
// but objects that are being deleted.
func (e Entry) Frees() bool {
	for _, c := range e.Changes {
		if c.Value != nil && !c.Frees {
			return false
		}
	}
	return true
}

// Why a proposal failed.
var (
	// ErrNotLeader: nothing was written, ask the leader.
	ErrNotLeader = errors.New("not the leader")
	// ErrUnknownOutcome: leadership was lost with the batch in flight; it may or may not be written.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrRefused: epoch or base were not current; nothing was written.
	ErrRefused = errors.New("refused: stale epoch or base")
	// ErrNoRoom: the disk is nearly full; nothing was written. Batches that only delete (Entry.Frees) are still taken.
	ErrNoRoom = errors.New("no room on disk")
)

// Leadership tells whether this member may propose, and under which epoch.
type Leadership struct {
	Leader bool
	Epoch  Epoch
}

// Journal is the port.
type Journal interface {
	// Propose returns when e is durable and applied to Hub, or failed with one of the errors above.
	Propose(ctx context.Context, e Entry) error
	// Hub is this member's replica.
	Hub() *Hub
	// Leadership calls f with the present leadership and at every change of it, in order, until the journal is closed.
	Leadership(f func(Leadership))
	// Barrier returns when everything committed before it is applied here.
	Barrier(ctx context.Context) error
	// VerifyLeader returns nil if this member still leads.
	VerifyLeader(ctx context.Context) error
	Close() error
}
