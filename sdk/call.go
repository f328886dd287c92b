package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/troupe-sh/troupe/messages"
)

// scheme knows the Go types of the kinds that there are.
var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, autoscalingv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // two libraries that do not fit together
		}
	}
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s
}()

var codec = protobuf.NewSerializer(scheme, scheme)

// marshaler is what all types of Kubernetes are.
type marshaler interface{ Marshal() ([]byte, error) }

// encode puts an object into Kubernetes' envelope. It only reads it.
func encode(o runtime.Object, kind schema.GroupVersionKind) ([]byte, error) {
	m, ok := o.(marshaler)
	if !ok {
		return nil, fmt.Errorf("%T: %w", o, errUnknownToThisSDK)
	}
	raw, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: kind.GroupVersion().String(), Kind: kind.Kind}, Raw: raw}
	data, err := u.Marshal()
	return append([]byte("k8s\x00"), data...), err
}

func decode(data []byte, into runtime.Object) error {
	_, _, err := codec.Decode(data, nil, into)
	return err
}

func decodeStatus(data []byte) (*metav1.Status, error) {
	s := &metav1.Status{}
	return s, decode(data, s)
}

type idKey struct{}

// WithID gives the write made with the context an id of the caller's: the same
// call under the same id within ten minutes is done once, and answered each
// time. Without it each call has an id of its own.
func WithID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, idKey{}, id)
}

type warningsKey struct{}

// WithWarnings has the warnings about requests made with the context given to
// hear. Without it they are logged by slog's default logger.
func WithWarnings(ctx context.Context, hear func(warning string)) context.Context {
	return context.WithValue(ctx, warningsKey{}, hear)
}

func warn(ctx context.Context, warnings []string) {
	hear, ok := ctx.Value(warningsKey{}).(func(string))
	for _, w := range warnings {
		if ok {
			hear(w)
		} else {
			slog.WarnContext(ctx, "the agent warns", "warning", w)
		}
	}
}

// outcomePatience is how long the outcome of a write is asked for when the
// context does not end before.
const outcomePatience = time.Minute

// write makes a call that writes, again and again under one id for as long as
// its outcome is not known. again says that it may have been carried out before.
func write[A any](ctx context.Context, c *Client, what string, call func(ctx context.Context, id string, again bool, o ...grpc.CallOption) (A, error)) (A, error) {
	id, ok := ctx.Value(idKey{}).(string)
	if !ok || id == "" {
		id = string(uuid.NewUUID())
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	open := false // whether it was carried out
	for wait := againAfter; ; wait = min(2*wait, againMost) {
		var answered peer.Peer // set once the call is on its way
		a, err := call(asking, id, open, grpc.Peer(&answered), grpc.WaitForReady(open))
		if err == nil {
			return a, nil
		}
		err = c.plain(ctx, err)
		var refused *Error
		switch {
		case errors.Is(err, ErrOutcomeUnknown):
		case errors.As(err, &refused):
			// Who cannot take the question says nothing of the first time.
			if !open || !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrTooManyRequests) {
				return a, err
			}
		case errors.Is(err, ErrNoAgent), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			if !open && answered.Addr == nil {
				return a, err // it never left
			}
		default:
			return a, err
		}
		if !open {
			open = true
			defer time.AfterFunc(outcomePatience, cancel).Stop()
		}
		select {
		case <-asking.Done():
			return a, &unknown{what, id, err}
		case <-time.After(wait):
		}
	}
}

// joined reads the parts of a list.
func joined(from grpc.ServerStreamingClient[messages.ListPart]) (data []byte, warnings []string, err error) {
	for {
		m, err := from.Recv()
		switch {
		case err == io.EOF:
			return data, warnings, nil
		case err != nil:
			return nil, nil, err
		}
		data = append(data, m.Data...)
		warnings = append(warnings, m.Warnings...)
	}
}
