package stream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	gwebsocket "github.com/gorilla/websocket"

	"github.com/troupe-sh/troupe/runtime/container"
)

// Dial connects to a server of the test, in place of port 80.
func (m *machine) Dial(ctx context.Context, sandbox string, port uint16) (net.Conn, error) {
	switch {
	case sandbox != "u1":
		return nil, fmt.Errorf("sandbox %s: %w", sandbox, container.ErrNotFound)
	case port != 80 || m.listens == "":
		return nil, fmt.Errorf("sandbox %s: dial: %w", sandbox, syscall.ECONNREFUSED)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", m.listens)
}

// serveTCP answers each connection with f, and tells what became of it.
func (l *lab) serveTCP(t *testing.T, f func(net.Conn) error) (ended chan error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	l.listens = listener.Addr().String()
	ended = make(chan error, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				ended <- f(conn)
			}()
		}
	}()
	return ended
}

// forwarders are the ways in which clients come.
var forwarders = map[string]func(*testing.T, *lab) httpstream.Dialer{
	"SPDY": func(t *testing.T, l *lab) httpstream.Dialer {
		transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: l.server.URL})
		if err != nil {
			t.Fatal(err)
		}
		return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, "POST", l.url(t, "portforward", nil))
	},
	"SPDY in a WebSocket": func(t *testing.T, l *lab) httpstream.Dialer {
		d, err := portforward.NewSPDYOverWebsocketDialerForStreaming(l.url(t, "portforward", nil), &rest.Config{Host: l.server.URL})
		if err != nil {
			t.Fatal(err)
		}
		return d
	},
}

// forward listens on a port of the test that leads to one of the pod.
func (l *lab) forward(t *testing.T, d httpstream.Dialer, port int) (address string, halt chan<- struct{}, done <-chan error) {
	t.Helper()
	halted, ready, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	f, err := portforward.NewOnAddressesForStreaming(d, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, halted, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), halted, ended
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestPortForward(t *testing.T) {
	for name, dialer := range forwarders {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			ended := l.serveTCP(t, func(c net.Conn) error {
				all, err := io.ReadAll(c) // to the end of what the client sends
				if err == nil {
					_, err = c.Write(bytes.ToUpper(all))
				}
				return err
			})
			address, halt, done := l.forward(t, dialer(t, l), 80)
			much := strings.Repeat("much ", 200_000)
			for _, text := range []string{"one", "two", much} {
				c := dial(t, address)
				if _, err := io.WriteString(c, text); err != nil {
					t.Fatal(err)
				}
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(c); err != nil || string(got) != strings.ToUpper(text) {
					t.Fatalf("%d bytes came back of %d, %v", len(got), len(text), err)
				}
				if err := <-ended; err != nil {
					t.Errorf("server: %v", err)
				}
			}
			close(halt)
			if err := <-done; err != nil {
				t.Errorf("client: %v", err)
			}
		})
	}
}

func TestPortForwardEndsWithItsClient(t *testing.T) {
	for name, dialer := range forwarders {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			began := make(chan struct{}, 1)
			ended := l.serveTCP(t, func(c net.Conn) error {
				one := make([]byte, 1)
				if _, err := c.Read(one); err != nil {
					return err
				}
				began <- struct{}{}
				for { // also half an end is none for this server
					if _, err := c.Write(one); err != nil {
						return nil
					}
				}
			})
			address, halt, done := l.forward(t, dialer(t, l), 80)
			c := dial(t, address)
			if _, err := io.WriteString(c, "x"); err != nil {
				t.Fatal(err)
			}
			<-began
			close(halt)
			if err := <-done; err != nil {
				t.Errorf("client: %v", err)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the connection is still open")
			}
		})
	}
}

func TestPortForwardWhereNobodyListens(t *testing.T) {
	for name, dialer := range forwarders {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			address, _, done := l.forward(t, dialer(t, l), 81)
			// The session of a client that hears why ends. One whose stream is
			// reset before it was confirmed goes on, and hears of the next one.
			late := time.After(20 * time.Second)
			for {
				if c, err := net.Dial("tcp", address); err == nil {
					_ = c.SetDeadline(time.Now().Add(20 * time.Second))
					if n, err := c.Read(make([]byte, 1)); n > 0 || os.IsTimeout(err) {
						t.Fatalf("%d bytes, %v", n, err)
					}
					c.Close()
				}
				select {
				case err := <-done:
					if err == nil || !strings.Contains(err.Error(), "lost connection to pod") {
						t.Errorf("client: %v", err)
					}
					return
				case <-late:
					t.Fatal("the session goes on")
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
}

func TestPortForwardByChannels(t *testing.T) {
	l := newLab(t)
	l.serveTCP(t, func(c net.Conn) error {
		_, err := io.Copy(c, c)
		return err
	})
	address := "ws" + strings.TrimPrefix(l.url(t, "portforward", &corev1.PodPortForwardOptions{Ports: []int32{80, 81}}).String(), "http")
	conn, _, err := (&gwebsocket.Dialer{Subprotocols: []string{"v4.channel.k8s.io"}}).Dial(address, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.WriteMessage(gwebsocket.BinaryMessage, []byte("\x00hello")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"\x00P\x00": "", "\x01P\x00": "", "\x02Q\x00": "", "\x03Q\x00": "", "\x00hello": "",
		"\x03error forwarding port 81 to pod p, uid u1: sandbox u1: dial: connection refused": "",
	}
	for len(want) > 0 {
		_, m, err := conn.ReadMessage()
		if err != nil {
			t.Fatalf("%v; not heard: %q", err, want)
		}
		if _, ok := want[string(m)]; !ok {
			t.Errorf("heard %q", m)
		}
		delete(want, string(m))
	}
}
