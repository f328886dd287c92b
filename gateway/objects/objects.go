// Package objects answers what clients ask of objects: the gRPC service of
// messages/objects.proto.
//
// One door, two ways in: each call is handed, within the process, to the
// handlers that answer REST. Most of what makes a request right stands there
// and not in the stores below them (managed fields, server-side apply, patches,
// validation of options, admission, warnings, limits, time-outs), so this is
// the one way in which gRPC and REST cannot come to differ. An object's bytes
// are the same on both, and pass through untouched.
package objects

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion/queryparams"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/messages"
)

// partSize is how much of a list one message carries.
const partSize = 1 << 20

// Server implements [messages.ObjectsServer].
type Server struct {
	messages.UnimplementedObjectsServer
	rest http.Handler
}

// New returns a Server before the handlers of REST.
func New(rest http.Handler) *Server { return &Server{rest: rest} }

// CreateObject implements [messages.ObjectsServer].
func (s *Server) CreateObject(ctx context.Context, m *messages.CreateObject) (*messages.Object, error) {
	return s.one(call{
		ctx: ctx, method: http.MethodPost, place: m.Place, options: &metav1.CreateOptions{}, encoded: m.Options,
		body: m.Object, content: runtime.ContentTypeProtobuf, id: m.Id,
	})
}

// GetObject implements [messages.ObjectsServer].
func (s *Server) GetObject(ctx context.Context, m *messages.GetObject) (*messages.Object, error) {
	return s.one(call{ctx: ctx, method: http.MethodGet, place: m.Place, options: &metav1.GetOptions{}, encoded: m.Options})
}

// ListObjects implements [messages.ObjectsServer].
func (s *Server) ListObjects(m *messages.ListObjects, to grpc.ServerStreamingServer[messages.ListPart]) error {
	return s.many(call{
		ctx: to.Context(), method: http.MethodGet, place: m.Place, options: &metav1.ListOptions{}, encoded: m.Options,
	}, to)
}

// UpdateObject implements [messages.ObjectsServer].
func (s *Server) UpdateObject(ctx context.Context, m *messages.UpdateObject) (*messages.Object, error) {
	return s.one(call{
		ctx: ctx, method: http.MethodPut, place: m.Place, options: &metav1.UpdateOptions{}, encoded: m.Options,
		body: m.Object, content: runtime.ContentTypeProtobuf, id: m.Id,
	})
}

// PatchObject implements [messages.ObjectsServer].
func (s *Server) PatchObject(ctx context.Context, m *messages.PatchObject) (*messages.Object, error) {
	return s.one(call{
		ctx: ctx, method: http.MethodPatch, place: m.Place, options: &metav1.PatchOptions{}, encoded: m.Options,
		body: m.Patch, content: m.Type, id: m.Id,
	})
}

// DeleteObject implements [messages.ObjectsServer].
func (s *Server) DeleteObject(ctx context.Context, m *messages.DeleteObject) (*messages.Object, error) {
	body, err := deleteOptions(m.Options)
	if err != nil {
		return nil, err
	}
	return s.one(call{
		ctx: ctx, method: http.MethodDelete, place: m.Place, body: body, content: runtime.ContentTypeProtobuf, id: m.Id,
	})
}

// DeleteObjects implements [messages.ObjectsServer].
func (s *Server) DeleteObjects(m *messages.DeleteObjects, to grpc.ServerStreamingServer[messages.ListPart]) error {
	body, err := deleteOptions(m.Options)
	if err != nil {
		return err
	}
	return s.many(call{
		ctx: to.Context(), method: http.MethodDelete, place: m.Place, options: &metav1.ListOptions{}, encoded: m.Selected,
		body: body, content: runtime.ContentTypeProtobuf,
	}, to)
}

// deleteOptions are the body of a DELETE.
func deleteOptions(encoded []byte) ([]byte, error) {
	o := &metav1.DeleteOptions{}
	if err := o.Unmarshal(encoded); err != nil {
		return nil, badRequest("the options are no metav1.DeleteOptions: %v", err)
	}
	o.APIVersion, o.Kind = "v1", "DeleteOptions"
	var body bytes.Buffer
	err := protobuf.NewSerializer(nil, nil).Encode(o, &body)
	return body.Bytes(), err
}

// call is a request to be put to REST.
type call struct {
	ctx     context.Context //nolint:containedctx // of the one request that this is
	method  string
	place   *messages.ObjectPlace
	options interface{ Unmarshal([]byte) error } // to be read from encoded; they become the query
	encoded []byte
	watch   bool
	body    []byte
	content string // the type of body
	id      string
}

// request is the call as a request of REST.
func (c call) request() (*http.Request, error) {
	path, err := c.path()
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	if c.options != nil {
		if err := c.options.Unmarshal(c.encoded); err != nil {
			return nil, badRequest("the options are no %T: %v", c.options, err)
		}
		if o, ok := c.options.(*metav1.ListOptions); ok {
			o.Watch = c.watch
		}
		if query, err = queryparams.Convert(c.options); err != nil {
			return nil, badRequest("options: %v", err)
		}
	}
	u := &url.URL{Path: path, RawQuery: query.Encode()}
	r := &http.Request{
		Method: c.method, URL: u, RequestURI: u.RequestURI(), Host: "localhost",
		Proto: "HTTP/2.0", ProtoMajor: 2, RemoteAddr: "@",
		Header:        http.Header{"Accept": {runtime.ContentTypeProtobuf}},
		Body:          io.NopCloser(bytes.NewReader(c.body)),
		ContentLength: int64(len(c.body)),
	}
	if len(c.body) > 0 {
		r.Header.Set("Content-Type", c.content)
	}
	if c.id != "" {
		r.Header.Set("Idempotency-Key", c.id)
	}
	if md, _ := metadata.FromIncomingContext(c.ctx); len(md.Get("user-agent")) > 0 {
		r.Header.Set("User-Agent", md.Get("user-agent")[0]) // names the manager of fields
	}
	return r.WithContext(c.ctx), nil
}

// path is where REST has what the call is about.
func (c call) path() (string, error) {
	p := c.place
	gvk := schema.GroupVersionKind{Group: p.GetGroup(), Version: p.GetVersion(), Kind: p.GetKind()}
	kind := kindOf(gvk)
	if kind == nil {
		return "", refused(metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
			Details: &metav1.StatusDetails{Group: gvk.Group, Kind: gvk.Kind},
			Message: fmt.Sprintf("Troupe does not have %s (%s) yet; it has %s", gvk.Kind, gvk.GroupVersion(), have()),
		}, nil)
	}
	all := p.Name == "" && c.method != http.MethodPost
	switch {
	case kind.Namespaced && p.Namespace == "" && !all:
		return "", badRequest("a %s lives in a namespace: name it", kind.Kind)
	case !kind.Namespaced && p.Namespace != "":
		return "", badRequest("a %s lives in no namespace, and %q is named", kind.Kind, p.Namespace)
	case all && (c.method == http.MethodPut || c.method == http.MethodPatch):
		return "", badRequest("the %s has no name", kind.Kind)
	case p.Subresource != "" && p.Name == "":
		return "", badRequest("%s of a %s: the object has no name", p.Subresource, kind.Kind)
	}
	path := "/api/" + kind.Version
	if kind.Group != "" {
		path = "/apis/" + kind.Group + "/" + kind.Version
	}
	if p.Namespace != "" {
		path += "/namespaces/" + p.Namespace
	}
	path += "/" + kind.Resource
	for _, part := range []string{p.Namespace, p.Name, p.Subresource} {
		if wrong := content.IsPathSegmentName(part); len(wrong) > 0 {
			return "", badRequest("invalid name %q: %s", part, strings.Join(wrong, ", "))
		}
	}
	for _, part := range []string{p.Name, p.Subresource} {
		if part != "" {
			path += "/" + part
		}
	}
	return path, nil
}

func kindOf(gvk schema.GroupVersionKind) *api.Kind {
	for _, k := range api.Kinds() {
		if k.GroupVersionKind == gvk {
			return k
		}
	}
	return nil
}

func have() string {
	var kinds []string
	for _, k := range api.Kinds() {
		kinds = append(kinds, k.Kind)
	}
	return strings.Join(kinds, ", ")
}

// one puts a call whose answer is one object.
func (s *Server) one(c call) (*messages.Object, error) {
	r, err := c.request()
	if err != nil {
		return nil, err
	}
	w := &answer{}
	s.rest.ServeHTTP(w, r)
	if err := w.refusal(r); err != nil {
		return nil, err
	}
	return &messages.Object{Object: w.body, Warnings: w.warnings()}, nil
}

// many puts a call whose answer is a list.
func (s *Server) many(c call, to grpc.ServerStreamingServer[messages.ListPart]) error {
	if c.place.GetName() != "" {
		return badRequest("the name %q with what is done to many: ask for the one object", c.place.GetName())
	}
	r, err := c.request()
	if err != nil {
		return err
	}
	w := &parts{to: to}
	s.rest.ServeHTTP(w, r)
	switch err := w.refusal(r); {
	case err != nil:
		return err
	case w.failed != nil:
		return w.failed
	}
	return to.Send(&messages.ListPart{Data: w.body, Warnings: w.warnings()})
}

// answer takes what REST answers.
type answer struct {
	header http.Header
	code   int
	body   []byte
}

// Header implements [http.ResponseWriter].
func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

// Write implements [http.ResponseWriter].
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, p...)
	return len(p), nil
}

// warnings are those that the answer carries.
func (a *answer) warnings() (texts []string) {
	found, _ := utilnet.ParseWarningHeaders(a.header.Values("Warning")) // our own: they are well formed
	for _, w := range found {
		texts = append(texts, strings.ToValidUTF8(w.Text, "?"))
	}
	return texts
}

var statuses = protobuf.NewSerializer(metav1Scheme(), metav1Scheme())

// metav1Scheme knows Status, and whatever else has no group of its own.
func metav1Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s
}

// refusal is the error that the answer says, if any.
func (a *answer) refusal(r *http.Request) error {
	if a.code < http.StatusBadRequest {
		return nil
	}
	st := metav1.Status{}
	var err error
	switch media, _, _ := mime.ParseMediaType(a.header.Get("Content-Type")); media {
	case runtime.ContentTypeProtobuf:
		_, _, err = statuses.Decode(a.body, nil, &st)
	case runtime.ContentTypeJSON:
		err = json.Unmarshal(a.body, &st)
	}
	if err != nil || st.Status != metav1.StatusFailure { // in words, or by a filter that knows none
		wait, _ := strconv.Atoi(a.header.Get("Retry-After"))
		st = apierrors.NewGenericServerResponse(a.code, r.Method, schema.GroupResource{}, "", string(a.body), wait, true).Status()
	}
	return refused(st, a.warnings())
}

func badRequest(format string, args ...any) error {
	return refused(apierrors.NewBadRequest(fmt.Sprintf(format, args...)).Status(), nil)
}

// refused is a refusal of Kubernetes as one of gRPC.
func refused(st metav1.Status, warnings []string) error {
	st.APIVersion, st.Kind = "v1", "Status"
	var encoded bytes.Buffer
	if err := statuses.Encode(&st, &encoded); err != nil {
		return err
	}
	s := status.New(codeOf(st), strings.ToValidUTF8(st.Message, "?"))
	detailed, err := s.WithDetails(protoadapt.MessageV1Of(&messages.RequestRefused{Status: encoded.Bytes(), Warnings: warnings}))
	if err != nil {
		return err
	}
	return detailed.Err()
}

// codeOf is the gRPC code for clients that read no details.
func codeOf(st metav1.Status) codes.Code {
	switch st.Code {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		if st.Reason == metav1.StatusReasonAlreadyExists {
			return codes.AlreadyExists
		}
		return codes.Aborted
	case http.StatusGone:
		return codes.OutOfRange
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	}
	return codes.Internal
}

// parts sends on what REST answers as it comes.
type parts struct {
	answer
	to     grpc.ServerStreamingServer[messages.ListPart]
	failed error
}

// Write implements [http.ResponseWriter].
func (w *parts) Write(p []byte) (int, error) {
	written := len(p)
	w.WriteHeader(http.StatusOK)
	for w.code < http.StatusBadRequest && w.failed == nil && len(w.body)+len(p) > partSize {
		n := partSize - len(w.body)
		w.failed = w.to.Send(&messages.ListPart{Data: append(w.body, p[:n]...)})
		w.body, p = w.body[:0], p[n:]
	}
	w.body = append(w.body, p...)
	return written, w.failed
}
