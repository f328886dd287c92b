// Package sdk is the Go client of a Troupe agent, over gRPC on the agent's socket.
//
// [For] works on the objects of one kind, with the types of k8s.io/api:
//
//	client, err := sdk.Dial("/run/troupe/troupe.sock")
//	pods := sdk.For[*corev1.Pod](client).Namespace("default")
//	pod, err := pods.Get(ctx, "web", metav1.GetOptions{})
//
// What goes in and comes out is what the Kubernetes API takes and gives: the
// same defaults, validation, admission, sub-resources and options, because it
// goes through the same door. A refusal is an [*Error], and tells what it is by
// errors.Is: [ErrNotFound], [ErrConflict], [ErrInvalid] and so on. Warnings go
// to whoever [WithWarnings] names.
//
// A write is done once: it carries an id, and when the connection is lost before
// its answer came, it is repeated under that id until the answer is known. When
// it stays unknown the error is [ErrOutcomeUnknown].
//
// [Cache] keeps a copy of all selected objects up to date, tells of each change
// once, and goes on by itself when the agent was away. Controllers are written
// with it: see examples/controller in the repository.
//
// The methods of [Client] are what only Troupe has: the running actors and the
// machine's images.
package sdk

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/troupe-sh/troupe/messages"
)

const (
	partSize   = 256 << 10 // how much of an archive one message carries
	answerMost = 32 << 20  // bytes of one answer

	againAfter = 50 * time.Millisecond // before the agent is asked or called again, doubling
	againMost  = time.Second
	callWait   = 5 * time.Second // until a call to an agent that does not pick up is given up
)

// Client talks to one agent. Any number of goroutines may use it.
type Client struct {
	socket  string
	conn    *grpc.ClientConn
	agent   messages.AgentClient
	objects messages.ObjectsClient
}

// Dial makes a client of the agent that listens on the unix socket. It
// connects with the first call, and again after the agent was away. To the agent
// it is known by the name of its program, which stands as manager on the fields
// that it sets.
func Dial(socket string) (*Client, error) {
	c := &Client{socket: socket}
	calls := backoff.Config{BaseDelay: againAfter, Multiplier: 2, Jitter: 0.2, MaxDelay: againMost}
	conn, err := grpc.NewClient("passthrough:///troupe",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: calls, MinConnectTimeout: callWait}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(answerMost)),
		grpc.WithUserAgent(filepath.Base(os.Args[0])+"/troupe-sdk"),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.call(ctx) }),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream))
	if err != nil {
		return nil, fmt.Errorf("agent at %s: %w", socket, err)
	}
	c.conn, c.agent, c.objects = conn, messages.NewAgentClient(conn), messages.NewObjectsClient(conn)
	return c, nil
}

// call connects to the agent.
func (c *Client) call(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.socket)
}

// back tells whether an agent answers again, so that a call which failed before
// it left may wait for the connection: the library tries to connect only now and
// then, and fails what is asked between.
func (c *Client) back(ctx context.Context, err error, p *peer.Peer) bool {
	if status.Code(err) != codes.Unavailable || p.Addr != nil {
		return false
	}
	conn, err := c.call(ctx)
	if err != nil {
		return false
	}
	conn.Close()
	c.conn.ResetConnectBackoff()
	return true
}

func (c *Client) unary(ctx context.Context, method string, req, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
	var p peer.Peer
	err := invoke(ctx, method, req, answer, conn, append(o, grpc.Peer(&p))...)
	if !c.back(ctx, err, &p) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	return invoke(ctx, method, req, answer, conn, append(o, grpc.WaitForReady(true))...)
}

func (c *Client) stream(ctx context.Context, d *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, d, conn, method, o...)
	if !c.back(ctx, err, &peer.Peer{}) { // what is on its way fails later
		return s, err
	}
	return open(ctx, d, conn, method, append(o, grpc.WaitForReady(true))...)
}

// Close ends all calls.
func (c *Client) Close() error { return c.conn.Close() }

// Version says what the agent is.
func (c *Client) Version(ctx context.Context) (*messages.Version, error) {
	v, err := c.agent.GetVersion(ctx, &messages.GetVersion{})
	return v, c.plain(ctx, err)
}

// Actors are the running trees, sorted by path.
func (c *Client) Actors(ctx context.Context) ([]*messages.Actor, error) {
	l, err := c.agent.ListActors(ctx, &messages.ListActors{})
	return l.GetActors(), c.plain(ctx, err)
}

// RestartActor makes the actor at path fail on purpose; its supervisor
// restarts it.
func (c *Client) RestartActor(ctx context.Context, path string) error {
	_, err := c.agent.RestartActor(ctx, &messages.RestartActor{Path: path})
	return c.plain(ctx, err)
}

// Images are those present on the agent's machine.
func (c *Client) Images(ctx context.Context) ([]*messages.Image, error) {
	l, err := c.agent.ListImages(ctx, &messages.ListImages{})
	return l.GetImages(), c.plain(ctx, err)
}

// LoadImage gives the agent an image archive (docker save or OCI layout, tar,
// also gzipped) and returns what it held.
func (c *Client) LoadImage(ctx context.Context, archive io.Reader) ([]*messages.Image, error) {
	ctx, cancel := context.WithCancel(ctx) // an archive that cannot be read must not end as one that is complete
	defer cancel()
	up, err := c.agent.LoadImage(ctx)
	if err != nil {
		return nil, c.plain(ctx, err)
	}
	buf := make([]byte, partSize)
	for {
		n, err := io.ReadFull(archive, buf)
		if n > 0 {
			if up.Send(&messages.ImagePart{Data: buf[:n]}) != nil {
				break // the reason comes with the answer
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	l, err := up.CloseAndRecv()
	return l.GetImages(), c.plain(ctx, err)
}

// PullImage has the agent pull an image from its registry and returns it. step,
// which may be nil, is told now and then how far it is. Several who pull the
// same share one pull.
func (c *Client) PullImage(ctx context.Context, m *messages.PullImage, step func(*messages.PullStep)) (*messages.Image, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	down, err := c.agent.PullImage(ctx, m)
	if err != nil {
		return nil, c.plain(ctx, err)
	}
	for {
		s, err := down.Recv()
		switch {
		case err != nil:
			return nil, c.plain(ctx, err)
		case s.Image != nil:
			return s.Image, nil
		case step != nil:
			step(s)
		}
	}
}

// RemoveImage removes the image of that name, digest or id.
func (c *Client) RemoveImage(ctx context.Context, name string) error {
	_, err := c.agent.RemoveImage(ctx, &messages.RemoveImage{Name: name})
	return c.plain(ctx, err)
}
