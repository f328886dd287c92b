package stream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"
)

// statusTimeout is how long a client may take for the last message.
const statusTimeout = 10 * time.Second

// serveWebSocket speaks the fifth version of the protocol, which kubectl asks
// for first: cri-streaming knows up to the fourth. It is the first in which
// the end of standard input can be said.
func serveWebSocket(w http.ResponseWriter, r *http.Request, o *remotecommand.Options, do action) {
	channels := make([]wsstream.ChannelType, 5) // all ignored unless asked for
	for i, want := range map[int]bool{
		remotecommand.StreamStdOut: o.Stdout, remotecommand.StreamStdErr: o.Stderr, remotecommand.StreamErr: true,
	} {
		if want {
			channels[i] = wsstream.WriteChannel
		}
	}
	for i, want := range map[int]bool{remotecommand.StreamStdIn: o.Stdin, remotecommand.StreamResize: true} {
		if want {
			channels[i] = wsstream.ReadChannel
		}
	}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name: {Binary: true, Channels: channels},
	})
	conn.SetIdleTimeout(idleTimeout)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return // Open has answered
	}
	defer conn.Close()

	// An empty message tells the client that it is connected.
	first := streams[remotecommand.StreamErr]
	switch {
	case o.Stdout:
		first = streams[remotecommand.StreamStdOut]
	case o.Stderr:
		first = streams[remotecommand.StreamStdErr]
	}
	if _, err := first.Write(nil); err != nil {
		return
	}
	var in io.Reader
	if o.Stdin {
		in = streams[remotecommand.StreamStdIn]
	}
	err = do(r.Context(), in, streams[remotecommand.StreamStdOut], streams[remotecommand.StreamStdErr],
		resizes(r.Context(), streams[remotecommand.StreamResize]))
	b, err := json.Marshal(outcome(err))
	if err != nil {
		panic(err) // plain strings and numbers
	}
	conn.SetWriteDeadline(statusTimeout)
	_, _ = streams[remotecommand.StreamErr].Write(b) // a client that has gone needs none
}

func resizes(ctx context.Context, from io.Reader) <-chan remotecommand.TerminalSize {
	to := make(chan remotecommand.TerminalSize)
	go func() {
		defer close(to)
		in := json.NewDecoder(from)
		for {
			var size remotecommand.TerminalSize
			if in.Decode(&size) != nil {
				return
			}
			select {
			case to <- size:
			case <-ctx.Done():
				return
			}
		}
	}()
	return to
}

// outcome is what a client is told at the end.
func outcome(err error) metav1.Status {
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &exit) && exit.Exited():
		return metav1.Status{
			Status: metav1.StatusFailure,
			Reason: remotecommand.NonZeroExitCodeReason,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{
				{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(exit.ExitStatus())},
			}},
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", exit),
		}
	}
	return metav1.Status{
		Status:  metav1.StatusFailure,
		Reason:  metav1.StatusReasonInternalError,
		Message: fmt.Sprintf("Internal error occurred: error executing command in container: %v", err),
		Code:    http.StatusInternalServerError,
	}
}

// hijackable tells when the client has gone: WebSocket and SPDY read from the
// connection all the time and see its end there; SPDY also closes it when the
// client says goodbye.
type hijackable struct {
	http.ResponseWriter
	gone func()
}

// Hijack implements [http.Hijacker].
func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	watched := &watchedConn{Conn: conn, gone: h.gone}
	// What was read from the connection already comes first.
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, nil, err
	}
	in := io.MultiReader(bytes.NewReader(bytes.Clone(early)), watched)
	return watched, bufio.NewReadWriter(bufio.NewReader(in), bufio.NewWriter(watched)), nil
}

type watchedConn struct {
	net.Conn
	gone func()
}

// Read implements [net.Conn].
func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.gone()
	}
	return n, err
}

// Close implements [net.Conn].
func (c *watchedConn) Close() error {
	c.gone()
	return c.Conn.Close()
}
