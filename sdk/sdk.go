// Package sdk is the Go client of a Troupe agent: what only Troupe has, over
// gRPC on the agent's socket. What Kubernetes has too is spoken with
// Kubernetes' own client, on the same socket.
package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/troupe-sh/troupe/messages"
)

// ErrNoAgent is the kind of error of a call when nothing answers on the socket.
var ErrNoAgent = errors.New("no agent answers")

// partSize is how much of an archive one message carries.
const partSize = 256 << 10

// Client talks to one agent.
type Client struct {
	socket string
	conn   *grpc.ClientConn
	agent  messages.AgentClient
}

// Dial makes a client of the agent that listens on the unix socket. It
// connects with the first call.
func Dial(socket string) (*Client, error) {
	conn, err := grpc.NewClient("passthrough:///troupe",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}))
	if err != nil {
		return nil, err
	}
	return &Client{socket: socket, conn: conn, agent: messages.NewAgentClient(conn)}, nil
}

// Close ends all calls.
func (c *Client) Close() error { return c.conn.Close() }

// Version says what the agent is.
func (c *Client) Version(ctx context.Context) (*messages.Version, error) {
	v, err := c.agent.GetVersion(ctx, &messages.GetVersion{})
	return v, c.plain(err)
}

// Actors are the running trees, sorted by path.
func (c *Client) Actors(ctx context.Context) ([]*messages.Actor, error) {
	l, err := c.agent.ListActors(ctx, &messages.ListActors{})
	return l.GetActors(), c.plain(err)
}

// RestartActor makes the actor at path fail on purpose; its supervisor
// restarts it.
func (c *Client) RestartActor(ctx context.Context, path string) error {
	_, err := c.agent.RestartActor(ctx, &messages.RestartActor{Path: path})
	return c.plain(err)
}

// Images are those present on the agent's machine.
func (c *Client) Images(ctx context.Context) ([]*messages.Image, error) {
	l, err := c.agent.ListImages(ctx, &messages.ListImages{})
	return l.GetImages(), c.plain(err)
}

// LoadImage gives the agent an image archive (docker save or OCI layout, tar,
// also gzipped) and returns what it held.
func (c *Client) LoadImage(ctx context.Context, archive io.Reader) ([]*messages.Image, error) {
	ctx, cancel := context.WithCancel(ctx) // an archive that cannot be read must not end as one that is complete
	defer cancel()
	up, err := c.agent.LoadImage(ctx)
	if err != nil {
		return nil, c.plain(err)
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
	return l.GetImages(), c.plain(err)
}

// RemoveImage removes the image of that name, digest or id.
func (c *Client) RemoveImage(ctx context.Context, name string) error {
	_, err := c.agent.RemoveImage(ctx, &messages.RemoveImage{Name: name})
	return c.plain(err)
}

// plain is the error without gRPC's wrapping.
func (c *Client) plain(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	switch s.Code() {
	case codes.Unavailable:
		return fmt.Errorf("%w at %s: %s", ErrNoAgent, c.socket, s.Message())
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	}
	return errors.New(s.Message())
}
