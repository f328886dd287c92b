package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections end in this process, so that their
// deadlines follow virtual time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// serving lets h answer behind the gateway's filters, and returns a way to it.
func serving(t *testing.T, h http.HandlerFunc) (dial func() net.Conn) {
	g := &Gateway{config: Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	g.handler = g.filtered(h)
	server := g.Server(nil)
	p := pipes{make(chan net.Conn), make(chan struct{})}
	go func() { _ = server.Serve(p) }()
	t.Cleanup(func() {
		close(p.done)
		_ = server.Close()
	})
	return func() net.Conn {
		client, served := net.Pipe()
		p.conns <- served
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
}

func TestAClientThatReadsNothingIsGivenUp(t *testing.T) {
	for _, path := range []string{"/api/v1/pods", "/api/v1/pods?watch=1"} {
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan time.Time, 1)
			dial := serving(t, func(w http.ResponseWriter, _ *http.Request) {
				for err := error(nil); err == nil; {
					_, err = w.Write(make([]byte, 1000))
				}
				ended <- time.Now()
			})
			at := time.Now()
			fmt.Fprintf(dial(), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
			if took := (<-ended).Sub(at); took > requestTimeout+takeTimeout {
				t.Errorf("%s: given up after %s", path, took)
			}
		})
	}
}

func TestAWatchThatIsQuietForHoursGoesOn(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		synctest.Test(t, func(t *testing.T) {
			dial := serving(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusOK)
				for i := range 3 {
					fmt.Fprintf(w, "part %d\n", i)
					w.(http.Flusher).Flush()
					select {
					case <-time.After(5 * time.Hour):
					case <-r.Context().Done():
						return
					}
				}
			})
			transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dial(), nil }}
			if proto == "HTTP/2.0" {
				transport.Protocols = new(http.Protocols)
				transport.Protocols.SetUnencryptedHTTP2(true)
			}
			defer transport.CloseIdleConnections()
			c := &http.Client{Transport: transport}
			// One that has a deadline comes before it on the same connection.
			for _, path := range []string{"/version", "/api/v1/pods?watch=1"} {
				resp, err := c.Get("http://x" + path)
				if err != nil {
					t.Fatal(err)
				}
				if path == "/version" {
					_ = resp.Body.Close()
					continue
				}
				if resp.Proto != proto {
					t.Errorf("spoke %s", resp.Proto)
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || strings.Count(string(got), "part") != 3 {
					t.Errorf("%s: %q, %v", proto, got, err)
				}
				_ = resp.Body.Close()
			}
		})
	}
}

func TestABodyThatNeverComesIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := serving(t, func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
		at := time.Now()
		c := dial()
		fmt.Fprint(c, "POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusBadRequest || time.Since(at) > requestTimeout {
			t.Errorf("after %s: %+v, %v", time.Since(at), resp, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		dial := serving(t, func(http.ResponseWriter, *http.Request) { t.Error("half a header was served") })
		at := time.Now()
		c := dial()
		fmt.Fprint(c, "GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n")
		_, err := io.ReadAll(c)
		if time.Since(at) > headerTimeout || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("after %s: %v", time.Since(at), err)
		}
	})
}
