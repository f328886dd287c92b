// Package mailbox is all that an actor has of the world outside its mailbox:
// time, slow work and chance, each of which comes back as a message. In
// production it is the time package and goroutines; in the simulation it is a
// seeded queue, so that one seed is one trace.
package mailbox

import (
	"context"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"k8s.io/apimachinery/pkg/types"
)

// Kernel makes the Work of each actor. An actor's producer calls New for every
// instance, so that what a dead instance had in flight is never heard of again.
type Kernel interface{ New() Work }

// Work is what one actor instance has in flight. Use it inside Receive only.
type Work interface {
	// Now is the time of day with a monotonic part.
	Now() time.Time
	// After sends the actor message once d has passed. Cancel of the result forgets it.
	After(ctx actor.Context, d time.Duration, message any) context.CancelFunc
	// Go runs f off the mailbox and sends the actor what it returns, unless
	// that is nil or the work was cancelled. f must not touch the actor's fields.
	Go(ctx actor.Context, f func(context.Context) any) context.CancelFunc
	// NewUID is a random UUID (RFC 9562, version 4).
	NewUID() types.UID
	// Cancel ends everything in flight. Call it on Stopping and Restarting.
	Cancel()
}
