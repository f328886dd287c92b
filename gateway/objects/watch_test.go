package objects

import (
	"context"
	"encoding/binary"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/troupe-sh/troupe/messages"
)

// client is the far end of a watch.
type client struct {
	grpc.BidiStreamingServer[messages.WatchObjects, messages.ObjectChanged]
	ctx  context.Context
	asks chan *messages.WatchObjects
	got  []string
}

func (c *client) Context() context.Context     { return c.ctx }
func (c *client) SendHeader(metadata.MD) error { return nil }
func (c *client) Send(m *messages.ObjectChanged) error {
	c.got = append(c.got, m.Type+" "+string(m.Object))
	return nil
}

func (c *client) Recv() (*messages.WatchObjects, error) {
	select {
	case m := <-c.asks:
		return m, nil
	case <-c.ctx.Done():
		return nil, c.ctx.Err()
	}
}

// rest writes the frames of a watch, in pieces, until the request ends.
func rest(events ...metav1.WatchEvent) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		for _, e := range events {
			data, _ := e.Marshal()
			frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
			for len(frame) > 0 {
				n := min(3, len(frame))
				_, _ = w.Write(frame[:n])
				frame = frame[n:]
			}
		}
		<-r.Context().Done()
	})
}

func added(name string) metav1.WatchEvent {
	return metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: []byte(name)}}
}

func watchPods(c *client, h http.Handler) chan error {
	ended := make(chan error, 1)
	go func() { ended <- New(h).WatchObjects(c) }()
	return ended
}

func first(more uint32) *messages.WatchObjects {
	return &messages.WatchObjects{Place: &messages.ObjectPlace{Version: "v1", Kind: "Pod"}, More: more}
}

func TestAClientIsSentWhatItAllowsAndCutOffWhenItTakesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &client{ctx: ctx, asks: make(chan *messages.WatchObjects)}
		ended := watchPods(c, rest(added("a"), added("b"), added("c"), added("d"), added("e")))
		expect := func(n int) {
			t.Helper()
			synctest.Wait()
			if len(c.got) != n {
				t.Fatalf("sent %q, want %d", c.got, n)
			}
		}
		c.asks <- first(2)
		expect(2)
		time.Sleep(slowest - time.Second)
		c.asks <- &messages.WatchObjects{More: 1}
		expect(3)
		time.Sleep(slowest - time.Second)
		c.asks <- &messages.WatchObjects{More: 1}
		expect(4)
		time.Sleep(slowest - time.Second)
		expect(4)
		time.Sleep(2 * time.Second)
		err := <-ended
		if s := status.Convert(err); s.Code() != codes.ResourceExhausted || len(s.Details()) != 1 {
			t.Fatalf("ended: %v", err)
		}
		st := metav1.Status{}
		if _, _, err := statuses.Decode(status.Convert(err).Details()[0].(*messages.RequestRefused).Status, nil, &st); err != nil || st.Reason != slowClient {
			t.Errorf("refused: %v, %v", st, err)
		}
		cancel()
	})
}

func TestAnErrorEndsAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &client{ctx: ctx, asks: make(chan *messages.WatchObjects, 1)}
		c.asks <- first(10)
		gone, err := (&runtime.Unknown{Raw: []byte("no status")}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		ended := watchPods(c, rest(added("a"), metav1.WatchEvent{Type: "ERROR", Object: runtime.RawExtension{Raw: gone}}, added("b")))
		if err := <-ended; err == nil || len(c.got) != 1 {
			t.Errorf("sent %q, then %v", c.got, err)
		}
		cancel()
	})
}

func TestMoreThanTheMostIsNotAllowed(t *testing.T) {
	a := newAllowance(1 << 31)
	a.add(1 << 31)
	a.add(1 << 31)
	if a.left != allowedMost {
		t.Errorf("%d are allowed", a.left)
	}
}
