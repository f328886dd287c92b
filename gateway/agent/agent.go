// Package agent answers Troupe's own verbs: the gRPC service of
// messages/agent.proto, on the same socket as the Kubernetes API.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/messages"
	"github.com/troupe-sh/troupe/runtime/container"
)

// maxMessage is the largest message taken in: an object, as large as a request
// of REST may be, and what stands around it.
const maxMessage = 4 << 20

// Trees are the supervision trees of the agent, as [supervise.Running] shows them.
type Trees interface {
	Actors() []supervise.Status
	Fail(path string) error
}

// Deps are what the answers come from.
type Deps struct {
	Version *messages.Version
	Trees   func() []Trees // those that run now
	Runtime container.Runtime
	// Pull pulls an image, once for all who want it, and tells how far it is.
	Pull func(ctx context.Context, name string, auth container.Auth, step func(container.Step)) (container.Image, error)
	Log  *slog.Logger
}

// Server implements [messages.AgentServer].
type Server struct {
	messages.UnimplementedAgentServer
	d    Deps
	grpc *grpc.Server
}

// New returns a Server.
func New(d Deps) *Server {
	s := &Server{d: d}
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (answer any, err error) {
			defer s.recovered(info.FullMethod, &err)
			return h(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
			defer s.recovered(info.FullMethod, &err)
			return h(srv, stream)
		}),
	)
	messages.RegisterAgentServer(s.grpc, s)
	return s
}

func (s *Server) recovered(method string, err *error) {
	if p := recover(); p != nil {
		s.d.Log.Error("a request panicked", "method", method, "error", p, "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "%s: the agent met a bug of its own; its log has the details", method)
	}
}

// RegisterService implements [grpc.ServiceRegistrar]: another service answers
// beside this one.
func (s *Server) RegisterService(d *grpc.ServiceDesc, impl any) { s.grpc.RegisterService(d, impl) }

// ServeHTTP answers gRPC calls that came in over HTTP/2.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.grpc.ServeHTTP(w, r) }

// GetVersion implements [messages.AgentServer].
func (s *Server) GetVersion(context.Context, *messages.GetVersion) (*messages.Version, error) {
	return s.d.Version, nil
}

// ListActors implements [messages.AgentServer].
func (s *Server) ListActors(context.Context, *messages.ListActors) (*messages.ActorList, error) {
	l := &messages.ActorList{}
	for _, t := range s.d.Trees() {
		for _, a := range t.Actors() {
			m := &messages.Actor{
				Path:        a.Path,
				Why:         a.Why,
				State:       string(a.State),
				Mailbox:     int64(a.Mailbox),
				Restarts:    int64(a.Restarts),
				LastFailure: a.LastFailure,
				LastMessage: a.LastMessage,
				LastStack:   a.LastStack,
			}
			if !a.LastFailureAt.IsZero() {
				m.LastFailureTime = timestamppb.New(a.LastFailureAt)
			}
			l.Actors = append(l.Actors, m)
		}
	}
	slices.SortFunc(l.Actors, func(a, b *messages.Actor) int { return strings.Compare(a.Path, b.Path) })
	return l, nil
}

// RestartActor implements [messages.AgentServer].
func (s *Server) RestartActor(_ context.Context, m *messages.RestartActor) (*messages.ActorRestarted, error) {
	for _, t := range s.d.Trees() {
		switch err := t.Fail(m.Path); {
		case err == nil:
			return &messages.ActorRestarted{}, nil
		case !errors.Is(err, supervise.ErrUnknown):
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
	}
	return nil, status.Errorf(codes.NotFound, "actor %q: there is none at that path; \"troupe actors\" lists them", m.Path)
}

// LoadImage implements [messages.AgentServer].
func (s *Server) LoadImage(up grpc.ClientStreamingServer[messages.ImagePart, messages.ImageList]) error {
	loaded, err := s.d.Runtime.Import(up.Context(), &parts{up: up})
	if err != nil {
		return refused("load image", err)
	}
	return up.SendAndClose(list(loaded))
}

// parts reads an archive from the messages that bring it.
type parts struct {
	up   grpc.ClientStreamingServer[messages.ImagePart, messages.ImageList]
	rest []byte
}

func (p *parts) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		m, err := p.up.Recv()
		if err != nil {
			return 0, err // io.EOF: the archive is complete
		}
		p.rest = m.Data
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

var _ io.Reader = (*parts)(nil)

// ListImages implements [messages.AgentServer].
func (s *Server) ListImages(ctx context.Context, _ *messages.ListImages) (*messages.ImageList, error) {
	present, err := s.d.Runtime.Images(ctx)
	if err != nil {
		return nil, refused("list images", err)
	}
	return list(present), nil
}

// PullImage implements [messages.AgentServer].
func (s *Server) PullImage(m *messages.PullImage, down grpc.ServerStreamingServer[messages.PullStep]) error {
	auth := container.Auth{Username: m.Username, Password: m.Password}
	pulled, err := s.d.Pull(down.Context(), m.Name, auth, func(now container.Step) {
		// One that does not arrive ends the call's context, and so the pull.
		_ = down.Send(&messages.PullStep{
			Layers: int64(now.Layers), LayersHere: int64(now.LayersHere), Bytes: now.Bytes, BytesHere: now.BytesHere,
		})
	})
	if errors.Is(err, container.ErrNotFound) {
		return status.Errorf(codes.NotFound, "%v", err)
	}
	if err != nil {
		return refused(fmt.Sprintf("image %q", m.Name), err)
	}
	return down.Send(&messages.PullStep{Image: list([]container.Image{pulled}).Images[0]})
}

// RemoveImage implements [messages.AgentServer].
func (s *Server) RemoveImage(ctx context.Context, m *messages.RemoveImage) (*messages.ImageRemoved, error) {
	if _, err := s.d.Runtime.Image(ctx, m.Name); err != nil {
		return nil, refused(fmt.Sprintf("image %q", m.Name), err)
	}
	if err := s.d.Runtime.RemoveImage(ctx, m.Name); err != nil {
		return nil, refused(fmt.Sprintf("remove image %q", m.Name), err)
	}
	return &messages.ImageRemoved{}, nil
}

func list(images []container.Image) *messages.ImageList {
	l := &messages.ImageList{}
	for _, i := range images {
		l.Images = append(l.Images, &messages.Image{Id: i.ID, Names: i.Names, Digests: i.Digests, Size: i.Size})
	}
	slices.SortFunc(l.Images, func(a, b *messages.Image) int { return strings.Compare(firstName(a), firstName(b)) })
	return l
}

func firstName(i *messages.Image) string {
	if len(i.Names) > 0 {
		return i.Names[0]
	}
	return i.Id
}

// refused is a runtime's error with its code on the wire.
func refused(what string, err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, container.ErrNotFound):
		return status.Errorf(codes.NotFound, "%s: not found; \"troupe image ls\" lists those present", what)
	case errors.Is(err, container.ErrBusy), errors.Is(err, container.ErrGone), errors.Is(err, container.ErrUnreachable):
		code = codes.FailedPrecondition
	case errors.Is(err, container.ErrInvalid):
		code = codes.InvalidArgument
	case errors.Is(err, container.ErrDenied):
		code = codes.PermissionDenied
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return status.Errorf(code, "%s: %v", what, err)
}
