package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
)

func dial(t testing.TB, s *gatewaytest.Server) net.Conn {
	t.Helper()
	c := must[net.Conn](t)(net.Dial("unix", s.Socket))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// goroutines polls until there are about as many as before.
func goroutines(t *testing.T, before int) {
	t.Helper()
	const some = 10 // that come and go by themselves
	now := 0
	for deadline := time.Now().Add(soon); time.Now().Before(deadline); {
		if now = runtime.NumGoroutine(); now <= before+some {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d goroutines, there were %d", now, before)
}

func TestGarbageOnTheSocketHurtsNobody(t *testing.T) {
	s := start(t)
	s.Must(configMap("a"))
	c := s.HTTP()
	before := runtime.NumGoroutine()
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 100_000)
	_, _ = random.Read(noise)
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for name, bytes := range map[string]string{
		"noise":                      string(noise),
		"zeros":                      strings.Repeat("\x00", 100_000),
		"a line without end":         "GET /" + strings.Repeat("a", 2<<20),
		"headers without end":        "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-Header: "+strings.Repeat("y", 1000)+"\r\n", 3000),
		"no host":                    "GET / HTTP/1.1\r\n\r\n",
		"no version":                 "GET /\r\n\r\n",
		"a version to come":          "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
		"two lengths":                "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}{}",
		"length and chunks":          "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a chunk of no size":         "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
		"a length that is not kept":  "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
		"a length below nothing":     "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"a line break in a header":   "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\n\r\n",
		"HTTP/2, then noise":         preface + string(noise),
		"HTTP/2, a frame too large":  preface + "\xff\xff\xff\x00\x00\x00\x00\x00\x01",
		"HTTP/2, settings on stream": preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x01",
		"HTTP/2, headers of noise":   preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x10\x00\x01\x04\x00\x00\x00\x01" + string(noise[:4096]),
		"HTTP/2, half a preface":     preface[:10],
		"another protocol":           "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + string(noise[:500]),
		"nothing":                    "",
	} {
		conn := dial(t, s)
		_ = conn.SetDeadline(time.Now().Add(soon))
		_, _ = io.WriteString(conn, bytes) // it may be refused halfway
		_ = conn.(*net.UnixConn).CloseWrite()
		answer, _ := io.ReadAll(conn) // until the server lets go
		if i := strings.IndexByte(string(answer), ' '); strings.HasPrefix(string(answer), "HTTP/1.1 ") && answer[i+1] != '4' && answer[i+1] != '5' {
			t.Errorf("%s was answered %.100q", name, answer)
		}
		_ = conn.Close()
		if body := get(t, c, maps+"/a", "application/json", http.StatusOK); !strings.Contains(body, `"a":"1"`) {
			t.Errorf("after %s: %s", name, body)
		}
	}
	if err := tls.Client(dial(t, s), &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context()); err == nil {
		t.Error("the socket speaks TLS")
	}
	goroutines(t, before)
}

func TestHeadersWithoutEndAreRefused(t *testing.T) {
	s := start(t)
	conn := dial(t, s)
	_ = conn.SetDeadline(time.Now().Add(soon))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n")
	for err := error(nil); err == nil; {
		_, err = fmt.Fprintf(conn, "X: %s\r\n", strings.Repeat("y", 10_000))
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%+v, %v", resp, err)
	}
}

// Many clients that ask for everything and take nothing of it.
func TestThoseWhoReadNothingHoldNobodyUp(t *testing.T) {
	s := start(t)
	big := configMap("big")
	big.Data["a"] = strings.Repeat("x", 1<<20-100) // more than the sockets' buffers
	s.Must(big)
	before := runtime.NumGoroutine()
	var conns []net.Conn
	for i := range 300 { // fewer than the places there are for reads
		conn := dial(t, s)
		query := ""
		if i%2 == 0 {
			query = "?watch=1"
		}
		fmt.Fprintf(conn, "GET %s%s HTTP/1.1\r\nHost: x\r\n\r\n", maps, query)
		conns = append(conns, conn)
	}
	c := s.Client("").CoreV1().ConfigMaps("default")
	for i := range 20 {
		small := must[*corev1.ConfigMap](t)(c.Create(t.Context(), configMap(fmt.Sprint("m-", i)), none))
		if err := c.Delete(t.Context(), small.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	goroutines(t, before)
}

// As many objects at once as a client can send: all are written, and what the
// door refuses meanwhile says that it is to be asked again.
func TestManyObjectsAtOnce(t *testing.T) {
	s := start(t)
	const objects = 2000 // ten thousand are test/e2e's
	at := time.Now()
	transport := &http.Transport{DialContext: s.Config().Dial, MaxConnsPerHost: 400, MaxIdleConnsPerHost: 400}
	t.Cleanup(transport.CloseIdleConnections)
	c := &http.Client{Transport: transport}
	var wg sync.WaitGroup
	var mu sync.Mutex
	refused := 0
	for i := range objects {
		wg.Go(func() {
			m := configMap(fmt.Sprintf("m-%05d", i))
			m.Kind, m.APIVersion = "ConfigMap", "v1"
			body, err := json.Marshal(m)
			if err != nil {
				t.Error(err)
				return
			}
			for {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost"+maps, bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Content-Type", "application/json")
				resp, err := c.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				text, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				switch {
				case resp.StatusCode == http.StatusCreated:
					return
				case resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "":
					mu.Lock()
					refused++
					mu.Unlock()
				default:
					t.Errorf("%d %s", resp.StatusCode, text)
					return
				}
			}
		})
	}
	wg.Wait()
	client := s.Client("").CoreV1().ConfigMaps("default")
	count := func() (n int) {
		for o := (metav1.ListOptions{Limit: 500}); ; {
			list := must[*corev1.ConfigMapList](t)(client.List(t.Context(), o))
			n += len(list.Items)
			if o.Continue = list.Continue; o.Continue == "" {
				return n
			}
		}
	}
	if n := count(); n != objects {
		t.Errorf("%d of %d objects are there", n, objects)
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	t.Logf("%d objects in %s, %d times told to come again, %d MB of heap", objects, time.Since(at), refused, memory.HeapAlloc>>20)
	if err := client.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil && !apierrors.IsTimeout(err) {
		t.Fatal(err)
	}
	t.Logf("and deleted after %s", time.Since(at))
	if n := count(); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}
