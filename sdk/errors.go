package sdk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/messages"
)

// What an error of this package is, by errors.Is.
var (
	// ErrNoAgent: nothing answers on the socket, or the connection was lost
	// while something was read. Nothing was written.
	ErrNoAgent = errors.New("no agent answers")
	// ErrOutcomeUnknown: whether the write was carried out is not known. The
	// same call under the same id ([WithID]) within ten minutes tells.
	ErrOutcomeUnknown = errors.New("outcome unknown")

	ErrNotFound         = errors.New("not found")
	ErrAlreadyExists    = errors.New("already exists")
	ErrConflict         = errors.New("conflict")           // somebody else wrote the object meanwhile, or a precondition does not hold
	ErrInvalid          = errors.New("invalid")            // [Error.Causes] has the fields
	ErrBadRequest       = errors.New("bad request")        // what cannot be understood at all
	ErrForbidden        = errors.New("forbidden")          //
	ErrTooManyRequests  = errors.New("too many requests")  // try again later
	ErrUnavailable      = errors.New("unavailable")        // the agent answers, but there is no leader yet: try again
	ErrGone             = errors.New("gone")               // the version or the page asked for is no longer kept: list anew
	errSlowClient       = errors.New("slow client")        // a watch goes on by itself
	errUnknownToThisSDK = errors.New("unknown to the SDK") // a Go type without a kind
)

// Parts of a refusal that Kubernetes has no word for.
const (
	causeOutcomeUnknown metav1.CauseType    = "OutcomeUnknown"
	reasonSlowClient    metav1.StatusReason = "SlowClient"
)

// Error is an agent's refusal. It is what the Kubernetes API says in a Status,
// and k8s.io/apimachinery/pkg/api/errors understands it too.
type Error struct{ status metav1.Status }

func (e *Error) Error() string { return e.status.Message }

// Status is the whole of it.
func (e *Error) Status() metav1.Status { return e.status }

// Causes are what is wrong, one by one: of an ErrInvalid each with the path of
// its field.
func (e *Error) Causes() []metav1.StatusCause {
	if e.status.Details == nil {
		return nil
	}
	return e.status.Details.Causes
}

func (e *Error) caused(by metav1.CauseType) bool {
	return slices.ContainsFunc(e.Causes(), func(c metav1.StatusCause) bool { return c.Type == by })
}

// Is lets errors.Is tell refusals apart.
func (e *Error) Is(kind error) bool {
	switch e.status.Reason {
	case metav1.StatusReasonNotFound:
		return kind == ErrNotFound
	case metav1.StatusReasonAlreadyExists:
		return kind == ErrAlreadyExists
	case metav1.StatusReasonConflict:
		return kind == ErrConflict
	case metav1.StatusReasonInvalid:
		return kind == ErrInvalid
	case metav1.StatusReasonBadRequest, metav1.StatusReasonMethodNotAllowed:
		return kind == ErrBadRequest
	case metav1.StatusReasonForbidden:
		return kind == ErrForbidden
	case metav1.StatusReasonTooManyRequests:
		return kind == ErrTooManyRequests
	case metav1.StatusReasonServiceUnavailable:
		return kind == ErrUnavailable
	case metav1.StatusReasonGone, metav1.StatusReasonExpired:
		return kind == ErrGone
	case metav1.StatusReasonTimeout:
		// A version that does not come is one of another journal.
		return kind == ErrOutcomeUnknown && e.caused(causeOutcomeUnknown) ||
			kind == ErrGone && e.caused(metav1.CauseTypeResourceVersionTooLarge)
	case reasonSlowClient:
		return kind == errSlowClient
	}
	return kind == ErrBadRequest && e.status.Code == http.StatusUnsupportedMediaType
}

// unknown is a write of which the last that was heard is err.
type unknown struct {
	what, id string
	err      error
}

func (u *unknown) Error() string {
	return fmt.Sprintf("%s: whether it was written is not known: %v; look, or call again with sdk.WithID(ctx, %q)", u.what, u.err, u.id)
}

func (u *unknown) Is(kind error) bool { return kind == ErrOutcomeUnknown }
func (u *unknown) Unwrap() error      { return u.err }

// plain is an error of gRPC without its wrapping, and the warnings that came with it.
func (c *Client) plain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	for _, d := range s.Details() {
		if m, ok := d.(*messages.RequestRefused); ok {
			st, err := decodeStatus(m.Status)
			if err != nil {
				return err
			}
			warn(ctx, m.Warnings)
			return &Error{*st}
		}
	}
	switch s.Code() {
	case codes.Unavailable:
		return fmt.Errorf("%w at %s: %s", ErrNoAgent, c.socket, s.Message())
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	}
	return errors.New(s.Message())
}
