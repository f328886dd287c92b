// Package command is what the registry is told: writes of whole objects, and
// their answers. Whoever sends a command has already filled in and checked the
// objects with package api; the registry numbers, orders and stores them.
package command

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/api"
)

// Op is what a Change does.
type Op uint8

// The operations.
const (
	_      Op = iota
	Create    // a new object; 409 AlreadyExists if the name is taken
	Update    // replace all of it; 409 Conflict if Version or UID moved
	Status    // replace .status alone, whatever else changed meanwhile; UID must match
	Delete    // remove it from the registry at once (graceful deletion is an Update that sets deletionTimestamp: api.BeginDelete)
	Purge     // Delete, whatever finalizers the object has: whoever asks has seen to them
)

// Change is one write. Changes of one Commit succeed or fail each for itself.
type Change struct {
	Op      Op
	Key     api.Key    // may leave Name empty in a Create whose object has a generateName
	Object  api.Object // Create, Update and Status; frozen once sent
	UID     types.UID  // if set, the stored object must have it
	Version uint64     // if set, the stored object must have this resourceVersion
}

// Commit asks the registry to write. The same ID again gets the same answer
// for ten minutes.
type Commit struct {
	ID      string // unique to this attempt: a client's, or actor path + start + ordinal
	Actor   string // who asks: an actor's path or a user, for the history
	Changes []Change
}

// Committed answers a Commit once it is durable, or failed as a whole.
type Committed struct {
	ID      string
	Err     error    // nothing was written (429 too many, 507 no room, 503 not the leader), or journal.ErrUnknownOutcome
	Results []Result // when Err is nil: one for each change, in their order
}

// Result is the answer to one Change: the object as it now stands (for a
// Delete, as it last stood), or an API status error (k8s.io/apimachinery/pkg/api/errors).
type Result struct {
	Object api.Object
	Err    error
}

// Sync asks the registry to answer Synced once everything that it took in
// before has been committed or refused. An actor asks it when it starts, so
// that its first read sees the writes of its predecessor.
type Sync struct{}

// Synced answers Sync.
type Synced struct{}
