package suite

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/troupe-sh/troupe/runtime/container"
)

// Registry is a registry for tests, to be served over HTTP or HTTPS.
type Registry struct {
	inner http.Handler

	mu    sync.Mutex
	auth  map[string]container.Auth // by repository: who alone gets it
	asked []string                  // METHOD PATH
	hold  chan struct{}             // while it is there, blobs wait
}

// NewRegistry is an empty one.
func NewRegistry() *Registry {
	return &Registry{
		inner: registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		auth:  map[string]container.Auth{},
	}
}

// Push puts an image there as REPOSITORY:TAG.
func (r *Registry) Push(repoTag string, image v1.Image) error {
	ref, err := name.NewTag("registry.test/"+repoTag, name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(ref, image, remote.WithTransport(direct{r.inner}))
}

// direct asks a handler without a network.
type direct struct{ h http.Handler }

// RoundTrip implements [http.RoundTripper].
func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	d.h.ServeHTTP(w, r)
	answer := w.Result()
	answer.Request = r
	return answer, nil
}

// Require gives a repository to one alone.
func (r *Registry) Require(repo string, a container.Auth) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.auth[repo] = a
}

// Hold lets requests for blobs wait until release is called.
func (r *Registry) Hold() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := make(chan struct{})
	r.hold = held
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hold = nil
		close(held)
	})
}

// Asked counts the requests of a method whose path contains part.
func (r *Registry) Asked(method, part string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.asked {
		if m, path, _ := strings.Cut(a, " "); m == method && strings.Contains(path, part) {
			n++
		}
	}
	return n
}

// ServeHTTP implements [http.Handler].
func (r *Registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	r.asked = append(r.asked, q.Method+" "+q.URL.Path)
	hold := r.hold
	var want container.Auth
	for repo, a := range r.auth {
		if strings.HasPrefix(q.URL.Path, "/v2/"+repo+"/") {
			want = a
		}
	}
	r.mu.Unlock()
	if user, password, _ := q.BasicAuth(); want != (container.Auth{}) && want != (container.Auth{Username: user, Password: password}) {
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if hold != nil && strings.Contains(q.URL.Path, "/blobs/") {
		select {
		case <-hold:
		case <-q.Context().Done():
			return
		}
	}
	r.inner.ServeHTTP(w, q)
}
