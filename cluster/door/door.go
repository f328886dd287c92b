// Package door is where clients' requests come in: reads go to this machine's
// replica of the journal, writes to the registry. It gives Kubernetes' own
// REST machinery the storage that it expects, so that everything above it —
// defaults, validation, strategies, patches — is Kubernetes' code.
package door

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// Config is what a Door opens on.
type Config struct {
	Hub *journal.Hub
	// Commit asks the registry and waits for its answer. When none comes the
	// error is [journal.ErrUnknownOutcome].
	Commit func(context.Context, *command.Commit) (*command.Committed, error)
	// Verify is [journal.Journal.VerifyLeader]: reads of the present wait for it.
	Verify func(context.Context) error
}

// Door serves any number of requests at once.
type Door struct {
	hub    *journal.Hub
	commit func(context.Context, *command.Commit) (*command.Committed, error)
	fresh  shared
	pins   pins
}

// New opens a door.
func New(c Config) *Door {
	return &Door{hub: c.Hub, commit: c.Commit, fresh: shared{do: c.Verify}}
}

type idempotencyKey struct{}

// WithIdempotencyKey makes the writes of a request carry the client's key, so
// that the same request sent again within ten minutes gets the first one's answer.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}

const (
	unknownAgain    = 50 * time.Millisecond // before an unknown outcome is asked again, doubling
	unknownAgainMax = time.Second
)

// write has a change committed, and answers with the object as it left it. An
// unknown outcome is asked for again, with the same ID, until it is known or
// the request's time is over.
func (d *Door) write(ctx context.Context, verb string, c command.Change) (api.Object, error) {
	commit := &command.Commit{ID: commandID(ctx, verb, c), Actor: userName(ctx), Changes: []command.Change{c}}
	unknown := false
	for wait := unknownAgain; ; wait = min(2*wait, unknownAgainMax) {
		done, err := d.commit(ctx, commit)
		if err == nil {
			err = done.Err
		}
		// Who cannot take the question says nothing of the first time.
		unknown = errors.Is(err, journal.ErrUnknownOutcome) ||
			unknown && (apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err))
		if err == nil {
			if len(done.Results) != 1 {
				return nil, fmt.Errorf("%s %s: the registry gave %d answers to one change", verb, c.Key, len(done.Results))
			}
			return done.Results[0].Object, done.Results[0].Err
		}
		if !unknown {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, outcomeUnknown(verb, c.Key)
		case <-time.After(wait):
		}
	}
}

// OutcomeUnknown is the type of the one cause in the details of a time-out that
// leaves open whether the request was carried out.
const OutcomeUnknown metav1.CauseType = "OutcomeUnknown"

func outcomeUnknown(verb string, key api.Key) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("%s %s: whether it was written is not known; look, or send it again with the same Idempotency-Key", verb, key), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: OutcomeUnknown, Message: "the write was handed in, and no answer came"}}
	return err
}

// carriedOut tells whether this write was carried out before under the client's key.
func (d *Door) carriedOut(ctx context.Context, verb string, c command.Change) bool {
	if key, ok := ctx.Value(idempotencyKey{}).(string); !ok || key == "" {
		return false
	}
	_, done := d.hub.Command(commandID(ctx, verb, c))
	return done
}

// commandID is unique to an attempt, or the same for the same write of the
// same user under the same Idempotency-Key.
func commandID(ctx context.Context, verb string, c command.Change) string {
	key, ok := ctx.Value(idempotencyKey{}).(string)
	if !ok || key == "" {
		return string(uuid.NewUUID())
	}
	name := c.Key
	if c.Op == command.Create && c.Object.GetGenerateName() != "" {
		name.Name = c.Object.GetGenerateName() // the name itself is another each time
	}
	return fmt.Sprintf("%s %s %s %s", userName(ctx), key, verb, name)
}

func userName(ctx context.Context) string {
	if u, ok := request.UserFrom(ctx); ok {
		return u.GetName()
	}
	return "unknown"
}
