package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/door"
)

// root is who speaks through the unix socket: only root can open it.
var root = &user.DefaultInfo{Name: "root", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

func withUser(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(request.WithUser(r.Context(), root)))
	})
}

func withIdempotencyKey(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if key := r.Header.Get("Idempotency-Key"); key != "" {
			r = r.WithContext(door.WithIdempotencyKey(r.Context(), key))
		}
		h.ServeHTTP(w, r)
	})
}

// withTimeout ends what is no watch and no stream after its time: the client's
// ?timeout= or ours, whichever is shorter.
func withTimeout(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if ok && longRunning(r, info) {
			h.ServeHTTP(w, r)
			return
		}
		timeout := requestTimeout
		if asked, err := time.ParseDuration(r.URL.Query().Get("timeout")); err == nil && asked > 0 {
			timeout = min(timeout, asked)
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		// A body that never ends is not waited for; a writer without deadlines is a test's.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(requestTimeout))
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// withPatience gives up on a client that does not take its answer, so that it
// holds neither a place among the requests nor what it asked for. A stream has
// time for each part of it.
func withPatience(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		c := http.NewResponseController(w)
		if ok && longRunning(r, info) {
			_ = c.SetWriteDeadline(time.Time{}) // which the request before on this connection had
			w = patient{w, c}
		} else {
			_ = c.SetWriteDeadline(time.Now().Add(requestTimeout + takeTimeout))
		}
		h.ServeHTTP(w, r)
	})
}

// patient is the answer of a stream. Between its parts it has no deadline: for
// HTTP/2 one that passes ends the stream.
type patient struct {
	http.ResponseWriter
	*http.ResponseController
}

// Write implements [http.ResponseWriter].
func (p patient) Write(b []byte) (int, error) {
	_ = p.SetWriteDeadline(time.Now().Add(takeTimeout))
	n, err := p.ResponseWriter.Write(b)
	if err == nil {
		_ = p.SetWriteDeadline(time.Time{})
	}
	return n, err
}

// Flush implements [http.Flusher].
func (p patient) Flush() {
	_ = p.SetWriteDeadline(time.Now().Add(takeTimeout))
	if p.ResponseController.Flush() == nil {
		_ = p.SetWriteDeadline(time.Time{})
	}
}

// CloseNotify is never called by Kubernetes' handlers, which stream only to a
// writer that has it.
func (p patient) CloseNotify() <-chan bool {
	//lint:ignore SA1019 the interface has no other name
	return p.ResponseWriter.(http.CloseNotifier).CloseNotify()
}

// Unwrap is for [http.NewResponseController].
func (p patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// withRecovery keeps a handler's bug to its own request.
func (g *Gateway) withRecovery(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p) // the server ends the connection, as it was asked to
			default:
				g.config.Log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "error", fmt.Sprint(p), "stack", string(debug.Stack()))
				writeStatus(w, apierrors.NewInternalError(fmt.Errorf("%s %s hit a bug in the agent; its log says where", r.Method, r.URL.Path)).Status())
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// unknown answers a request for what does not exist here.
func (g *Gateway) unknown(w http.ResponseWriter, r *http.Request, code int) {
	info, err := requestInfos.NewRequestInfo(r)
	status := metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: metav1.StatusReasonNotFound, Message: "nothing is served at " + r.URL.Path}
	switch {
	case code == http.StatusMethodNotAllowed:
		status.Reason = metav1.StatusReasonMethodNotAllowed
		status.Message = fmt.Sprintf("%s is not possible on %s", r.Method, r.URL.Path)
	case code == http.StatusUnsupportedMediaType:
		status.Reason = metav1.StatusReasonUnsupportedMediaType
		status.Message = fmt.Sprintf("a %s does not take a body of the type %q; %s", r.Method, r.Header.Get("Content-Type"), taken(r.Method))
	case code == http.StatusNotAcceptable:
		status.Reason = metav1.StatusReasonNotAcceptable
		status.Message = fmt.Sprintf("%s is not answered as %q; say Accept: %s", r.URL.Path, r.Header.Get("Accept"), strings.Join(mediaTypes, " or "))
	case code != http.StatusNotFound:
		status.Reason = metav1.StatusReasonUnknown
		status.Message = http.StatusText(code)
	case err == nil && info.Resource != "":
		status.Details = &metav1.StatusDetails{Group: info.APIGroup, Kind: info.Resource, Name: info.Name}
		what := info.Resource
		if info.Subresource != "" && api.KindFor(info.Resource) != nil {
			what += "/" + info.Subresource
		}
		gv := info.APIVersion
		if info.APIGroup != "" {
			gv = info.APIGroup + "/" + gv
		}
		status.Message = fmt.Sprintf("Troupe does not have %s (%s) yet; it has %s", what, gv, have())
	case strings.HasPrefix(r.URL.Path, "/apis/"):
		status.Message = fmt.Sprintf("Troupe does not have the API group %s yet; it has %s", strings.TrimPrefix(r.URL.Path, "/apis/"), have())
	}
	writeStatus(w, status)
}

var mediaTypes = []string{runtime.ContentTypeJSON, runtime.ContentTypeYAML, runtime.ContentTypeProtobuf}

// taken says which types of bodies a method takes.
func taken(method string) string {
	types := mediaTypes
	if method == http.MethodPatch {
		types = []string{string(apitypes.JSONPatchType), string(apitypes.MergePatchType), string(apitypes.StrategicMergePatchType), string(apitypes.ApplyYAMLPatchType)}
	}
	return "it takes " + strings.Join(types, ", ")
}

// noCustomResources is asked by kubectl before it says that a kind of a known
// group does not exist. Anything else than a list there hides what is wrong.
func noCustomResources(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `{"kind":"CustomResourceDefinitionList","apiVersion":"apiextensions.k8s.io/v1","metadata":{},"items":[]}`)
}

// have lists the kinds that there are.
func have() string {
	var names []string
	for _, k := range api.Kinds() {
		names = append(names, k.Resource)
	}
	return strings.Join(names, ", ")
}

func writeStatus(w http.ResponseWriter, s metav1.Status) {
	s.Kind, s.APIVersion = "Status", "v1"
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(s.Code))
	_ = json.NewEncoder(w).Encode(s) // the client is gone: nobody to tell
}

func ok(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }

func (g *Gateway) ready(w http.ResponseWriter, _ *http.Request) {
	if g.config.Ready != nil {
		if err := g.config.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprint(w, "ok")
}

func (g *Gateway) version(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(g.config.Version)
}
