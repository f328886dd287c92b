package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// target is the container c, whose port named web is at addr.
func target(addr net.Addr) pod.Target {
	t := pod.Target{
		ID: "u1.c.0", Pod: &corev1.Pod{},
		Container: &corev1.Container{Name: "c", Env: []corev1.EnvVar{{Name: "FILE", Value: "/tmp/x"}, {Name: "SECRET", ValueFrom: &corev1.EnvVarSource{}}}},
	}
	if a, ok := addr.(*net.TCPAddr); ok {
		t.Addr = a.IP.String()
		t.Container.Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: int32(a.Port)}}
	}
	return t
}

func ask(t *testing.T, p *Prober, to pod.Target, h corev1.ProbeHandler) pod.Answer {
	t.Helper()
	return p.Probe(t.Context(), to, &corev1.Probe{ProbeHandler: h, TimeoutSeconds: 1})
}

func expect(t *testing.T, what string, a pod.Answer, outcome pod.Outcome, output string) {
	t.Helper()
	if a.Err != nil || a.Outcome != outcome || !strings.Contains(a.Output, output) {
		t.Errorf("%s: %+v, want %s %q", what, a, outcome, output)
	}
}

func get(path string, edit ...func(*corev1.HTTPGetAction)) corev1.ProbeHandler {
	g := &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("web")}
	for _, e := range edit {
		e(g)
	}
	return corev1.ProbeHandler{HTTPGet: g}
}

func TestHTTP(t *testing.T) {
	hang := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/code":
			code, _ := strconv.Atoi(r.URL.RawQuery)
			w.WriteHeader(code)
		case "/away":
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
		case "/hang":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		default:
			fmt.Fprintf(w, "%s %s %s %q", r.Host, r.Header.Get("X-A"), r.UserAgent(), r.Header["Accept"])
		}
	})
	server := httptest.NewServer(handler)
	defer server.Close()
	defer close(hang)
	secure := httptest.NewTLSServer(handler)
	defer secure.Close()
	p := New(nil)
	plain := target(server.Listener.Addr())
	for code, want := range map[int]pod.Outcome{200: pod.Passed, 204: pod.Passed, 304: pod.Warned, 399: pod.Warned, 400: pod.Failed, 404: pod.Failed, 500: pod.Failed} {
		output := ""
		if want == pod.Failed {
			output = fmt.Sprintf("HTTP probe failed with statuscode: %d", code)
		}
		expect(t, fmt.Sprint(code), ask(t, p, plain, get(fmt.Sprintf("/code?%d", code))), want, output)
	}
	expect(t, "headers", ask(t, p, plain, get("/", func(g *corev1.HTTPGetAction) {
		g.HTTPHeaders = []corev1.HTTPHeader{{Name: "Host", Value: "web.example"}, {Name: "X-A", Value: "1"}}
	})), pod.Passed, `web.example 1 kube-probe/`)
	expect(t, "a host of its own", ask(t, p, pod.Target{Addr: "192.0.2.1", Pod: plain.Pod, Container: plain.Container}, get("/", func(g *corev1.HTTPGetAction) {
		g.Host = plain.Addr
	})), pod.Passed, "127.0.0.1:")
	expect(t, "a certificate of its own", ask(t, p, target(secure.Listener.Addr()), get("/", func(g *corev1.HTTPGetAction) {
		g.Scheme = corev1.URISchemeHTTPS
	})), pod.Passed, "kube-probe/")
	expect(t, "a redirect to elsewhere", ask(t, p, plain, get("/away")), pod.Warned, "Probe terminated redirects")
	expect(t, "no answer in time", ask(t, p, plain, get("/hang")), pod.Failed, "context deadline exceeded")
	if a := ask(t, p, plain, get("/", func(g *corev1.HTTPGetAction) { g.Port = intstr.FromString("none") })); a.Err == nil || a.Outcome != pod.Unknown {
		t.Errorf("a port that has no such name: %+v", a)
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := target(l.Addr())
	h := corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("web")}}
	expect(t, "open", ask(t, New(nil), to, h), pod.Passed, "")
	l.Close()
	expect(t, "closed", ask(t, New(nil), to, h), pod.Failed, "connection refused")
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	state := health.NewServer()
	state.SetServingStatus("db", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, state)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	port := int32(l.Addr().(*net.TCPAddr).Port)
	at := func(service *string) corev1.ProbeHandler {
		return corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port, Service: service}}
	}
	db, other := "db", "other"
	to := target(l.Addr())
	expect(t, "the server", ask(t, New(nil), to, at(nil)), pod.Passed, "service healthy")
	expect(t, "a service", ask(t, New(nil), to, at(&db)), pod.Failed, `service unhealthy (responded with "NOT_SERVING")`)
	expect(t, "no such service", ask(t, New(nil), to, at(&other)), pod.Failed, "unknown service")
	server.Stop()
	expect(t, "nobody", ask(t, New(nil), to, at(nil)), pod.Failed, "failed to connect service")
}

// commands is a runtime that can do no more than run commands.
type commands struct {
	container.Runtime
	calls int
	exec  func(ctx context.Context, e container.ExecSpec) (int, error)
}

func (c *commands) Exec(ctx context.Context, id string, e container.ExecSpec) (int, error) {
	c.calls++
	if id != "u1.c.0" {
		return 0, container.ErrNotFound
	}
	return c.exec(ctx, e)
}

func TestExec(t *testing.T) {
	for _, c := range []struct {
		name    string
		exec    func(ctx context.Context, e container.ExecSpec) (int, error)
		outcome pod.Outcome
		output  string
		calls   int
		err     string
	}{
		{"passes", func(_ context.Context, e container.ExecSpec) (int, error) {
			fmt.Fprintf(e.Stdout, "out %q ", e.Command)
			fmt.Fprint(e.Stderr, "err")
			return 0, nil
		}, pod.Passed, `out ["cat" "/tmp/x" "" "$(NONE)"] err`, 1, ""},
		{"fails", func(_ context.Context, e container.ExecSpec) (int, error) {
			fmt.Fprint(e.Stderr, "cat: can't open '/tmp/x'")
			return 1, nil
		}, pod.Failed, "cat: can't open '/tmp/x'", 1, ""},
		{"takes too long", func(ctx context.Context, _ container.ExecSpec) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}, pod.Failed, `command timed out: "cat /tmp/x  $(NONE)" timed out after 1s`, 1, ""},
		{"cannot be run", func(context.Context, container.ExecSpec) (int, error) {
			return 0, fmt.Errorf("exec: no such file: %w", container.ErrInvalid)
		}, pod.Unknown, "", tries, "no such file"},
		{"cannot be run at first", func() func(context.Context, container.ExecSpec) (int, error) {
			n := 0
			return func(context.Context, container.ExecSpec) (int, error) {
				if n++; n < tries {
					return 0, container.ErrGone
				}
				return 0, nil
			}
		}(), pod.Passed, "", tries, ""},
		{"says very much", func(_ context.Context, e container.ExecSpec) (int, error) {
			for range 100 {
				if n, err := fmt.Fprint(e.Stdout, strings.Repeat("x", 1000)); n != 1000 || err != nil {
					return 0, errors.New("a short write")
				}
			}
			return 0, nil
		}, pod.Passed, strings.Repeat("x", outputMax), 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &commands{exec: c.exec}
			a := ask(t, New(r), target(nil), corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "$(FILE)", "$(SECRET)", "$(NONE)"}}})
			if a.Outcome != c.outcome || a.Output != c.output || r.calls != c.calls || (a.Err != nil) != (c.err != "") || c.err != "" && !strings.Contains(a.Err.Error(), c.err) {
				t.Errorf("%+v in %d calls", a, r.calls)
			}
		})
	}
}

func TestNothingToAsk(t *testing.T) {
	if a := ask(t, New(nil), target(nil), corev1.ProbeHandler{}); a.Err == nil || a.Outcome != pod.Unknown {
		t.Errorf("%+v", a)
	}
}

func hook(t *testing.T, r container.Runtime, to pod.Target, h corev1.LifecycleHandler) string {
	t.Helper()
	if err := New(r).Hook(t.Context(), to, &h); err != nil {
		return err.Error()
	}
	return ""
}

func TestHooks(t *testing.T) {
	asked := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path + " " + r.Header.Get("Authorization") + " " + r.UserAgent()
		w.WriteHeader(http.StatusInternalServerError) // any answer is one
	}))
	defer server.Close()
	to := target(server.Listener.Addr())
	h := corev1.LifecycleHandler{HTTPGet: get("/stop").HTTPGet}
	if err := hook(t, nil, to, h); err != "" {
		t.Error(err)
	}
	if got := <-asked; !strings.HasPrefix(got, "/stop  kube-lifecycle/") {
		t.Errorf("asked for %s", got)
	}
	h.HTTPGet.Scheme = corev1.URISchemeHTTPS
	h.HTTPGet.HTTPHeaders = []corev1.HTTPHeader{{Name: "Authorization", Value: "secret"}}
	if err := hook(t, nil, to, h); err != "" {
		t.Error(err)
	}
	if got := <-asked; !strings.HasPrefix(got, "/stop  kube-lifecycle/") {
		t.Errorf("asked in the clear for %s", got)
	}
	server.Close()
	if err := hook(t, nil, to, h); !strings.HasPrefix(err, `HTTP lifecycle hook (/stop) for Container "c" in Pod "_()" failed - error: `) || !strings.Contains(err, "refused") {
		t.Error(err)
	}

	r := &commands{exec: func(_ context.Context, e container.ExecSpec) (int, error) {
		fmt.Fprint(e.Stderr, "no")
		return len(e.Command) - 1, nil
	}}
	exec := func(words ...string) corev1.LifecycleHandler {
		return corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: words}}
	}
	if err := hook(t, r, to, exec("true")); err != "" {
		t.Error(err)
	}
	if err, want := hook(t, r, to, exec("false", "x")), `Exec lifecycle hook ([false x]) for Container "c" in Pod "_()" failed - error: command 'false x' exited with 1: no, message: "no"`; err != want {
		t.Errorf("%s, want %s", err, want)
	}
	if err := hook(t, nil, to, corev1.LifecycleHandler{Sleep: &corev1.SleepAction{}}); err != "" {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(nil).Hook(ended, to, &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 3600}}); err == nil {
		t.Error("it slept on")
	}
	if err := hook(t, nil, to, corev1.LifecycleHandler{TCPSocket: &corev1.TCPSocketAction{}}); !strings.Contains(err, "invalid handler") {
		t.Error(err)
	}
}
