package gateway

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/door"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// stuck is a gateway whose reads wait until release is called.
func stuck(t *testing.T) (h http.Handler, release func()) {
	wait := make(chan struct{})
	d := door.New(door.Config{Hub: journal.NewHub(journal.NewState(api.Decode)), Verify: func(ctx context.Context) error {
		select {
		case <-wait:
		case <-ctx.Done():
		}
		return ctx.Err()
	}})
	g, err := New(Config{Door: d, Streams: bugs{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return g.Handler(nil), sync.OnceFunc(func() { close(wait) })
}

// bugs panics wherever it is asked.
type bugs struct{}

func (bugs) ServeLog(http.ResponseWriter, *http.Request, *corev1.Pod, *corev1.PodLogOptions) {
	panic("log")
}

func (bugs) ServeExec(http.ResponseWriter, *http.Request, *corev1.Pod, *corev1.PodExecOptions) {
	panic("exec")
}

func (bugs) ServeAttach(http.ResponseWriter, *http.Request, *corev1.Pod, *corev1.PodAttachOptions) {
	panic("attach")
}

func (bugs) ServePortForward(http.ResponseWriter, *http.Request, *corev1.Pod, *corev1.PodPortForwardOptions) {
	panic("portforward")
}

func ask(h http.Handler, path string) (code int, body string, header http.Header) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	data, _ := io.ReadAll(w.Body)
	return w.Code, string(data), w.Header()
}

func TestTooManyRequestsAtOnceAreRefused(t *testing.T) {
	h, release := stuck(t)
	over := make(chan struct{})
	var wg sync.WaitGroup
	for range maxReads + 1 { // one more than there are places: they are always taken
		wg.Go(func() {
			for {
				ask(h, "/api/v1/pods")
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	defer wg.Wait()
	defer release()
	defer close(over)
	for {
		code, _, header := ask(h, "/api/v1/pods?timeout=1ms") // times out until all places are taken
		if code == http.StatusTooManyRequests {
			if header.Get("Retry-After") == "" {
				t.Error("it does not say when to try again")
			}
			return
		}
	}
}

func TestTheLimitCanBeChanged(t *testing.T) {
	inside, release := make(chan struct{}, 2), make(chan struct{})
	g := &Gateway{config: Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	h := g.filtered(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("stay") {
			inside <- struct{}{}
			<-release
		}
	}))
	var wg sync.WaitGroup
	stay := func() {
		wg.Go(func() { ask(h, "/api/v1/pods?stay") })
		<-inside
	}
	want := func(what string, want int) {
		t.Helper()
		if code, _, _ := ask(h, "/api/v1/pods"); code != want {
			t.Errorf("%s: %d, want %d", what, code, want)
		}
	}
	g.Limit(1, 1)
	stay()
	want("the only place is taken", http.StatusTooManyRequests)
	g.Limit(2, 1)
	want("there are more", http.StatusOK)
	stay()
	g.Limit(1, 1)
	want("those under way do not count any more", http.StatusOK)
	close(release)
	wg.Wait()
	want("and all are gone", http.StatusOK)
}

func TestARequestEndsWithItsTime(t *testing.T) {
	h, release := stuck(t)
	defer release()
	code, body, _ := ask(h, "/api/v1/pods?timeout=10ms")
	if code != http.StatusServiceUnavailable && code != http.StatusGatewayTimeout {
		t.Errorf("%d %s", code, body)
	}
}

func TestABugStaysInItsRequest(t *testing.T) {
	g := &Gateway{config: Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	h := g.filtered(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a bug") }))
	code, body, _ := ask(h, "/api/v1/pods")
	if code != http.StatusInternalServerError || !strings.Contains(body, "GET /api/v1/pods hit a bug in the agent; its log says where") || strings.Contains(body, "a bug\"") {
		t.Errorf("%d %s", code, body)
	}
}
