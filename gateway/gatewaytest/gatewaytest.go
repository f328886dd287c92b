// Package gatewaytest serves the API, REST and gRPC, over a journal in memory
// without machines: with a registry at work what is written is stored, and
// nothing else happens; with the control tree its actors do what they do.
package gatewaytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/troupe-sh/troupe/actors"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/registry"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/door"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/model"
	"github.com/troupe-sh/troupe/gateway"
	"github.com/troupe-sh/troupe/gateway/agent"
	"github.com/troupe-sh/troupe/gateway/objects"
	"github.com/troupe-sh/troupe/messages"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// TB is what a Server needs of a test: the part of [testing.TB] that an example
// can offer too.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
	TempDir() string
	Output() io.Writer
}

// Server is an API at work.
type Server struct {
	Journal *model.Journal
	Door    *door.Door
	Gateway *gateway.Gateway
	Socket  string // where it listens

	t        TB
	log      *slog.Logger
	streams  gateway.Streams
	tree     func(journal.Epoch) supervise.Node
	usage    atomic.Pointer[pod.Usage]
	system   *actor.ActorSystem
	running  *supervise.Running
	registry *actor.PID
	http     *http.Server // at Socket
	own      http.Handler // gRPC
}

// Node is the machine that it claims to run on.
const Node = "n1"

const answerTimeout = 10 * time.Second

// Start serves until the test ends. The namespace default exists. Without
// streams no pod has a live side.
func Start(t TB, streams gateway.Streams) *Server {
	t.Helper()
	s := prepare(t, streams)
	s.tree = func(epoch journal.Epoch) supervise.Node {
		return supervise.Group("control", supervise.RestForOne, supervise.Budget{Restarts: 3, Within: time.Minute},
			supervise.Leaf("registry", "orders writes", registry.New(registry.Config{
				Journal: s.Journal, Epoch: epoch, Seal: unsealed, PodCIDR: podCIDR, Kernel: mailbox.Real(), Log: s.log,
			})))
	}
	s.begin()
	s.Must(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceDefault}})
	return s
}

// StartControl serves with the whole control tree: what controllers do happens.
func StartControl(t TB, streams gateway.Streams) *Server {
	t.Helper()
	s := prepare(t, streams)
	s.tree = func(epoch journal.Epoch) supervise.Node {
		return actors.Control(actors.ControlDeps{
			System: s.system, Journal: s.Journal, Epoch: epoch, Seal: unsealed, PodCIDR: podCIDR, Kernel: mailbox.Real(), Log: s.log,
		})
	}
	s.begin()
	made := make(chan struct{}, 1)
	cursor := s.Journal.Hub().Subscribe(s.Journal.Hub().Seq(), func() { made <- struct{}{} }, "namespaces")
	defer cursor.Close()
	for deadline := time.After(answerTimeout); ; {
		if _, ok := s.Journal.Hub().Get(api.Key{Resource: "namespaces", Name: metav1.NamespaceDefault}); ok {
			return s
		}
		_, _, _ = cursor.Next(1)
		select {
		case <-made:
		case <-deadline:
			t.Fatal("the control tree makes no namespace default")
		}
	}
}

// noStreams is the live side of pods that run nowhere.
type noStreams struct{}

func (noStreams) ServeLog(w http.ResponseWriter, _ *http.Request, _ *corev1.Pod, _ *corev1.PodLogOptions) {
	http.Error(w, "no machine", http.StatusNotImplemented)
}

func (noStreams) ServeExec(w http.ResponseWriter, _ *http.Request, _ *corev1.Pod, _ *corev1.PodExecOptions) {
	http.Error(w, "no machine", http.StatusNotImplemented)
}

func (noStreams) ServeAttach(w http.ResponseWriter, _ *http.Request, _ *corev1.Pod, _ *corev1.PodAttachOptions) {
	http.Error(w, "no machine", http.StatusNotImplemented)
}

func (noStreams) ServePortForward(w http.ResponseWriter, _ *http.Request, _ *corev1.Pod, _ *corev1.PodPortForwardOptions) {
	http.Error(w, "no machine", http.StatusNotImplemented)
}

var podCIDR = netip.MustParsePrefix("10.244.0.0/16")

func unsealed(_ api.Key, value []byte) []byte { return value }

func prepare(t TB, streams gateway.Streams) *Server {
	if streams == nil {
		streams = noStreams{}
	}
	return &Server{
		Journal: model.New(model.Options{Decode: api.Decode}),
		Socket:  filepath.Join(t.TempDir(), "s"),
		t:       t, streams: streams,
		log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

func (s *Server) begin() {
	s.t.Helper()
	s.Up()
	s.t.Cleanup(s.Down)
}

// Up starts an agent on the journal and listens at the socket.
func (s *Server) Up() {
	s.t.Helper()
	s.system = supervise.NewSystem(s.log)
	var reign journal.Leadership
	s.Journal.Leadership(func(l journal.Leadership) { reign = l })
	var err error
	s.running, err = supervise.Start(s.system, s.tree(reign.Epoch),
		supervise.Options{Log: s.log, Fell: func(err error) { s.t.Errorf("the control tree fell: %v", err) }})
	if err != nil {
		s.t.Fatal(err)
	}
	<-s.running.Ready()
	s.registry = s.system.NewLocalPID("control/registry")
	system, registry := s.system, s.registry // what is under way when this agent ends must not meet the next one's
	s.Door = door.New(door.Config{
		Hub: s.Journal.Hub(), Verify: s.Journal.VerifyLeader,
		Commit: func(_ context.Context, c *command.Commit) (*command.Committed, error) {
			return commit(system, registry, c)
		},
	})
	s.Gateway, err = gateway.New(gateway.Config{
		Door: s.Door, Streams: s.streams, Log: s.log, Node: Node,
		Usage: func(context.Context) (*pod.Usage, error) {
			if u := s.usage.Load(); u != nil {
				return u, nil
			}
			return nil, errors.New("nothing is measured yet")
		},
		Version: version.Info{Major: "1", Minor: "36", GitVersion: "v1.36.3+troupe"},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	running := s.running
	own := agent.New(agent.Deps{
		Version: &messages.Version{Troupe: "test", Kubernetes: "v1.36.3", Node: Node},
		Trees:   func() []agent.Trees { return []agent.Trees{running} },
		Runtime: fake.New(fake.Options{}),
		Log:     s.log,
	})
	messages.RegisterObjectsServer(own, objects.New(s.Gateway.Handler(nil)))
	s.own = own
	s.http, _ = s.listen("unix", s.Socket)
}

// Down ends the agent as a kill does: connections break, and what was under way
// gets no answer. The journal stays.
func (s *Server) Down() {
	s.t.Helper()
	_ = s.http.Close()
	s.running.Stop()
	s.system.Shutdown()
}

// Measure lets the node and its pods use that.
func (s *Server) Measure(u *pod.Usage) { s.usage.Store(u) }

// Commit asks the registry, as an agent does.
func (s *Server) Commit(_ context.Context, c *command.Commit) (*command.Committed, error) {
	return commit(s.system, s.registry, c)
}

func commit(system *actor.ActorSystem, registry *actor.PID, c *command.Commit) (*command.Committed, error) {
	answer, err := system.Root.RequestFuture(registry, c, answerTimeout).Result()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", journal.ErrUnknownOutcome, err)
	}
	return answer.(*command.Committed), nil
}

// Must stores a new object beside the API.
func (s *Server) Must(o api.Object) api.Object {
	s.t.Helper()
	prepared, err := api.Prepare(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.Change(command.Change{Op: command.Create, Key: api.KeyOf(prepared), Object: prepared})
}

// Change writes beside the API, as an actor does.
func (s *Server) Change(c command.Change) api.Object {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	commit := &command.Commit{ID: string(uuid.NewUUID()), Actor: "test", Changes: []command.Change{c}}
	done, err := s.Commit(ctx, commit)
	for errors.Is(err, journal.ErrUnknownOutcome) && ctx.Err() == nil { // the tree is still starting
		done, err = s.Commit(ctx, commit)
	}
	if err == nil {
		err = done.Err
	}
	if err == nil {
		err = done.Results[0].Err
	}
	if err != nil {
		s.t.Fatalf("%s: %v", c.Key, err)
	}
	return done.Results[0].Object
}

// Listen serves at one more address until the test ends.
func (s *Server) Listen(network, address string) net.Addr {
	s.t.Helper()
	server, at := s.listen(network, address)
	s.t.Cleanup(func() { _ = server.Close() })
	return at
}

func (s *Server) listen(network, address string) (*http.Server, net.Addr) {
	s.t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		s.t.Fatal(err)
	}
	server := s.Gateway.Server(s.own)
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.t.Errorf("serve %s: %v", address, err)
		}
	}()
	return server, l.Addr()
}

// Config leads a client to the socket.
func (s *Server) Config() *rest.Config {
	return &rest.Config{
		Host: "http://localhost",
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", s.Socket)
		},
		QPS: -1,
	}
}

// Client speaks JSON or whatever content type is given.
func (s *Server) Client(contentType string) *kubernetes.Clientset {
	s.t.Helper()
	c := s.Config()
	c.ContentType = contentType
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		s.t.Fatal(err)
	}
	return client
}

// HTTP is a plain client of the socket.
func (s *Server) HTTP() *http.Client {
	s.t.Helper()
	transport := &http.Transport{DialContext: s.Config().Dial}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// Churn makes n changes of one object, beside the API.
func (s *Server) Churn(o *corev1.ConfigMap, n int) {
	s.t.Helper()
	s.Must(o)
	const at = 500
	for done := 0; done < n; {
		var changes []command.Change
		for range min(at, n-done) {
			done++
			c := o.DeepCopy()
			c.Data["turn"] = fmt.Sprint(done)
			changes = append(changes, command.Change{Op: command.Update, Key: api.KeyOf(o), Object: c})
		}
		answer, err := s.Commit(context.Background(), &command.Commit{ID: string(uuid.NewUUID()), Actor: "test", Changes: changes})
		if err == nil {
			err = answer.Err
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}
