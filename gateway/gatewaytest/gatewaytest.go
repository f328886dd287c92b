// Package gatewaytest serves the API over a journal in memory and a registry at
// work, without machines: what is written is stored, and nothing else happens.
package gatewaytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/registry"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/door"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/model"
	"github.com/troupe-sh/troupe/gateway"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Server is an API at work.
type Server struct {
	Journal *model.Journal
	Door    *door.Door
	Gateway *gateway.Gateway
	Socket  string // where it listens

	t        testing.TB
	usage    atomic.Pointer[pod.Usage]
	system   *actor.ActorSystem
	registry *actor.PID
}

// Node is the machine that it claims to run on.
const Node = "n1"

const answerTimeout = 10 * time.Second

// Start serves until the test ends. The namespace default exists.
func Start(t testing.TB, streams gateway.Streams) *Server {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	s := &Server{t: t, Journal: model.New(model.Options{Decode: api.Decode}), system: supervise.NewSystem(log)}
	var reign journal.Leadership
	s.Journal.Leadership(func(l journal.Leadership) { reign = l })
	tree, err := supervise.Start(s.system, supervise.Group("control", supervise.RestForOne, supervise.Budget{Restarts: 3, Within: time.Minute},
		supervise.Leaf("registry", "orders writes", registry.New(registry.Config{
			Journal: s.Journal,
			Epoch:   reign.Epoch,
			Seal:    func(_ api.Key, value []byte) []byte { return value },
			PodCIDR: netip.MustParsePrefix("10.244.0.0/16"),
			Kernel:  mailbox.Real(),
			Log:     log,
		}))), supervise.Options{Log: log, Fell: func(err error) { t.Errorf("the control tree fell: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Stop(); s.system.Shutdown() })
	s.registry = s.system.NewLocalPID("control/registry")
	s.Door = door.New(door.Config{Hub: s.Journal.Hub(), Commit: s.Commit, Verify: s.Journal.VerifyLeader})
	s.Gateway, err = gateway.New(gateway.Config{
		Door: s.Door, Streams: streams, Log: log, Node: Node,
		Usage: func(context.Context) (*pod.Usage, error) {
			if u := s.usage.Load(); u != nil {
				return u, nil
			}
			return nil, errors.New("nothing is measured yet")
		},
		Version: version.Info{Major: "1", Minor: "36", GitVersion: "v1.36.3+troupe"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Must(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceDefault}})
	s.Socket = s.Listen("unix", filepath.Join(t.TempDir(), "s")).String()
	return s
}

// Measure lets the node and its pods use that.
func (s *Server) Measure(u *pod.Usage) { s.usage.Store(u) }

// Commit asks the registry, as an agent does.
func (s *Server) Commit(_ context.Context, c *command.Commit) (*command.Committed, error) {
	answer, err := s.system.Root.RequestFuture(s.registry, c, answerTimeout).Result()
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

// Listen serves at one more address.
func (s *Server) Listen(network, address string) net.Addr {
	s.t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		s.t.Fatal(err)
	}
	server := s.Gateway.Server(nil)
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.t.Errorf("serve %s: %v", address, err)
		}
	}()
	s.t.Cleanup(func() { _ = server.Close() })
	return l.Addr()
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
