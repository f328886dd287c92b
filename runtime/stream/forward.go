package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/troupe-sh/troupe/runtime/container"
)

// ServePortForward connects a client to ports of a pod, as often as it likes
// until it goes: over SPDY, SPDY in a WebSocket, or WebSocket channels.
func (s *Streams) ServePortForward(w http.ResponseWriter, r *http.Request, p *corev1.Pod, o *corev1.PodPortForwardOptions) {
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		inside := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.forward(tunnel{w}, r, p, o) })
		proxy.NewTunnelingHandler(inside).ServeHTTP(w, r)
		return
	}
	s.forward(w, r, p, o)
}

func (s *Streams) forward(w http.ResponseWriter, r *http.Request, p *corev1.Pod, o *corev1.PodPortForwardOptions) {
	for _, port := range o.Ports {
		if port < 1 || port > 65535 {
			refuse(w, apierrors.NewBadRequest(fmt.Sprintf("port %d of pod %s: must be between 1 and 65535", port, p.Name)))
			return
		}
	}
	if wsstream.IsWebSocketRequest(r) && len(o.Ports) == 0 {
		refuse(w, apierrors.NewBadRequest("a WebSocket without SPDY in it must name its ports: ?ports=80"))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel() // ends the connections of a client that has gone
	portforward.ServePortForward(w, r.WithContext(ctx), forwarder{s.c.Runtime, ctx}, p.Name, string(p.UID),
		&portforward.V4Options{Ports: o.Ports}, idleTimeout, creationTimeout, portforward.SupportedProtocols)
}

// forwarder makes the connections of one client.
type forwarder struct {
	runtime container.Runtime
	client  context.Context // ends when the client goes
}

// PortForward implements [portforward.PortForwarder].
func (f forwarder) PortForward(_ context.Context, _, uid string, port int32, client io.ReadWriteCloser) error {
	conn, err := f.runtime.Dial(f.client, uid, uint16(port))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(f.client, func() { conn.Close() })()
	go func() {
		// The client may say that it sends no more, and still listen.
		_, _ = io.Copy(conn, client)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	_, err = io.Copy(client, conn)
	if f.client.Err() != nil {
		return nil // nobody is there to be told
	}
	return err
}

// tunnel is the answer to a SPDY request that came in a WebSocket: the tunnel
// around it wants the answer's header on the connection, as a proxy would see it.
type tunnel struct{ http.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (t tunnel) WriteHeader(code int) {
	if code != http.StatusSwitchingProtocols {
		t.ResponseWriter.WriteHeader(code)
	}
}

// Hijack implements [http.Hijacker].
func (t tunnel) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	hijacker, ok := t.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("the connection cannot be taken over")
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		return nil, nil, err
	}
	answer := http.Response{StatusCode: http.StatusSwitchingProtocols, ProtoMajor: 1, ProtoMinor: 1, Header: t.Header()}
	if err := answer.Write(conn); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn)), nil
}
