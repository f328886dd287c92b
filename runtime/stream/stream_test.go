package stream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// machine runs what is executed as its own processes. What else a runtime does
// is not asked of it here.
type machine struct {
	container.Runtime

	mu     sync.Mutex
	states map[string]container.State
	tell   func(container.Event)
	sizes  []container.Size
	began  chan int // process IDs
	ended  chan error

	listens     string // where what is forwarded leads
	stdin       io.WriteCloser
	stdinClosed chan struct{}
	resized     chan container.Size
}

func (m *machine) Container(_ context.Context, id string) (container.Container, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	state, ok := m.states[id]
	if !ok {
		return container.Container{}, fmt.Errorf("container %s: %w", id, container.ErrNotFound)
	}
	return container.Container{ID: id, State: state}, nil
}

func (m *machine) Subscribe(f func(container.Event)) func() {
	m.tell = f
	return func() {}
}

func (m *machine) set(id string, s container.State, e container.Event) {
	m.mu.Lock()
	m.states[id] = s
	m.mu.Unlock()
	m.tell(e)
}

func (m *machine) Exec(ctx context.Context, id string, e container.ExecSpec) (int, error) {
	if e.Command[0] == "fail" {
		return 0, errors.New("no such program")
	}
	cmd := exec.CommandContext(ctx, e.Command[0], e.Command[1:]...)
	cmd.Stdout, cmd.Stderr = e.Stdout, e.Stderr
	if e.Stdin != nil {
		in, err := cmd.StdinPipe()
		if err != nil {
			return 0, err
		}
		// The end of the process is not that of its standard input.
		go func() {
			defer in.Close()
			_, _ = io.Copy(in, e.Stdin)
		}()
	}
	if e.TTY {
		for size := range e.Resize {
			m.mu.Lock()
			m.sizes = append(m.sizes, size)
			enough := len(m.sizes) == 2
			m.mu.Unlock()
			if enough {
				break
			}
		}
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if m.began != nil {
		m.began <- cmd.Process.Pid
	}
	err := cmd.Wait()
	if m.ended != nil {
		m.ended <- ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

const running = "u1.c.1"

func thePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u1"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: "c", ContainerID: "containerd://" + running, RestartCount: 1,
			State:                corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://u1.c.0"}},
		}}},
	}
}

// lab is a machine with one pod, whose streams are served as the API does.
type lab struct {
	*machine
	pod     *corev1.Pod
	streams *Streams
	server  *httptest.Server
	dir     string
	drained chan string
	// attached hears of containers whose output is to be in the log at once.
	attached chan string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{
		machine: &machine{states: map[string]container.State{running: container.Running}},
		pod:     thePod(), dir: t.TempDir(), drained: make(chan string, 10), attached: make(chan string, 10),
	}
	l.streams = New(Config{
		Runtime: l.machine, LogDir: l.dir, Log: slog.New(slog.DiscardHandler),
		Drain:  func(_ context.Context, id string) error { l.drained <- id; return nil },
		Attach: func(ctx context.Context, id string) error { l.attached <- id; <-ctx.Done(); return nil },
	})
	t.Cleanup(l.streams.Close)
	l.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := []byte(r.URL.Query().Get("o"))
		switch r.URL.Path {
		case "/log":
			l.streams.ServeLog(w, r, l.pod, options[corev1.PodLogOptions](t, o))
		case "/exec":
			l.streams.ServeExec(w, r, l.pod, options[corev1.PodExecOptions](t, o))
		case "/attach":
			l.streams.ServeAttach(w, r, l.pod, options[corev1.PodAttachOptions](t, o))
		case "/portforward":
			l.streams.ServePortForward(w, r, l.pod, options[corev1.PodPortForwardOptions](t, o))
		}
	}))
	t.Cleanup(l.server.Close)
	return l
}

// options as the API hands them over; how it reads them from a request is its own.
func options[T any](t *testing.T, b []byte) *T {
	o := new(T)
	if err := json.Unmarshal(b, o); err != nil {
		t.Error(err)
	}
	return o
}

func (l *lab) url(t *testing.T, what string, o any) *url.URL {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(l.server.URL + "/" + what + "?o=" + url.QueryEscape(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// executors are the ways in which clients come.
var executors = map[string]func(*rest.Config, *url.URL) (remotecommand.Executor, error){
	"WebSocket v5": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(c, "GET", u.String())
	},
	"WebSocket v4": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutorForProtocols(c, "GET", u.String(), "v4.channel.k8s.io")
	},
	"SPDY": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(c, "POST", u)
	},
}

// each runs f once for each way.
func each(t *testing.T, f func(t *testing.T, l *lab, open func(what string, o any) remotecommand.Executor)) {
	for name, executor := range executors {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			f(t, l, func(what string, o any) remotecommand.Executor {
				t.Helper()
				e, err := executor(&rest.Config{Host: l.server.URL}, l.url(t, what, o))
				if err != nil {
					t.Fatal(err)
				}
				return e
			})
		})
	}
}

func TestExec(t *testing.T) {
	each(t, func(t *testing.T, l *lab, open func(string, any) remotecommand.Executor) {
		var out, errs bytes.Buffer
		e := open("exec", &corev1.PodExecOptions{Command: []string{"sh", "-c", "echo out; echo err >&2"}, Stdout: true, Stderr: true})
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out, Stderr: &errs})
		if err != nil || out.String() != "out\n" || errs.String() != "err\n" {
			t.Errorf("%q, %q, %v", out.String(), errs.String(), err)
		}

		e = open("exec", &corev1.PodExecOptions{Command: []string{"sh", "-c", "exit 42"}, Stdout: true})
		err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 42 {
			t.Errorf("exit code: %v", err)
		}

		e = open("exec", &corev1.PodExecOptions{Command: []string{"fail"}, Stdout: true})
		err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
		if err == nil || !strings.Contains(err.Error(), "error executing command in container: no such program") {
			t.Errorf("failure: %v", err)
		}
	})
}

func TestExecMuchThroughStdin(t *testing.T) {
	each(t, func(t *testing.T, l *lab, open func(string, any) remotecommand.Executor) {
		if strings.HasSuffix(t.Name(), "v4") {
			return // has no end of standard input
		}
		in := bytes.Repeat([]byte("0123456789"), 500_000)
		var out bytes.Buffer
		e := open("exec", &corev1.PodExecOptions{Command: []string{"cat"}, Stdin: true, Stdout: true})
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: bytes.NewReader(in), Stdout: &out})
		if err != nil || !bytes.Equal(out.Bytes(), in) {
			t.Errorf("%d of %d bytes came back, %v", out.Len(), len(in), err)
		}
	})
}

// queue of two terminal sizes.
type queue chan remotecommand.TerminalSize

func (q queue) Next() *remotecommand.TerminalSize {
	size, ok := <-q
	if !ok {
		return nil
	}
	return &size
}

func TestExecWithTerminal(t *testing.T) {
	each(t, func(t *testing.T, l *lab, open func(string, any) remotecommand.Executor) {
		q := make(queue, 2)
		q <- remotecommand.TerminalSize{Width: 80, Height: 24}
		q <- remotecommand.TerminalSize{Width: 132, Height: 43}
		var out bytes.Buffer
		// kubectl asks for no standard error with a terminal; others do.
		e := open("exec", &corev1.PodExecOptions{Command: []string{"sh", "-c", "echo out; echo err >&2"}, Stdin: true, Stdout: true, TTY: true})
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader(""), Stdout: &out, Tty: true, TerminalSizeQueue: q})
		close(q)
		if err != nil || out.String() != "out\n" {
			t.Errorf("%q, %v", out.String(), err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if fmt.Sprint(l.machine.sizes) != "[{80 24} {132 43}]" {
			t.Errorf("sizes %v", l.machine.sizes)
		}
	})
}

func TestExecEndsWithItsClient(t *testing.T) {
	each(t, func(t *testing.T, l *lab, open func(string, any) remotecommand.Executor) {
		l.began, l.machine.ended = make(chan int, 1), make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-l.began; cancel() }()
		e := open("exec", &corev1.PodExecOptions{Command: []string{"sleep", "1000"}, Stdout: true})
		if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard}); !errors.Is(err, context.Canceled) {
			t.Errorf("client: %v", err)
		}
		select {
		case err := <-l.machine.ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("process: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the process was not killed")
		}
	})
}

func (l *lab) put(t *testing.T, attempt uint32, text string) {
	t.Helper()
	path := pod.LogPath(l.pod, "c", pod.Machine{LogDir: l.dir}, attempt)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) get(t *testing.T, o *corev1.PodLogOptions) (int, string, *http.Response) {
	t.Helper()
	r, err := http.Get(l.url(t, "log", o).String())
	if err != nil {
		t.Fatal(err)
	}
	if o.Follow {
		t.Cleanup(func() { r.Body.Close() })
		return r.StatusCode, "", r
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b), r
}

const at = "2026-07-26T10:00:00.000000000Z "

func TestLog(t *testing.T) {
	l := newLab(t)
	l.put(t, 0, at+"stdout F before\n")
	l.put(t, 1, at+"stdout F one\n"+at+"stderr F two\n")
	tail := int64(1)
	for want, o := range map[string]*corev1.PodLogOptions{
		"one\ntwo\n": {},
		"two\n":      {Container: "c", TailLines: &tail},
		"before\n":   {Previous: true},
		at + "two\n": {TailLines: &tail, Timestamps: true},
	} {
		if code, got, r := l.get(t, o); code != 200 || got != want || r.Header.Get("Content-Type") != "text/plain" {
			t.Errorf("%+v: %d %q, want %q", o, code, got, want)
		}
	}
	if len(l.drained) != 1 || <-l.drained != "u1.c.0" {
		t.Errorf("not just the one that has ended was drained")
	}
	l.put(t, 1, "")
	if err := os.RemoveAll(l.dir); err != nil {
		t.Fatal(err)
	}
	if code, got, _ := l.get(t, &corev1.PodLogOptions{}); code != 400 || !strings.Contains(got, `the log of container \"c\" in pod \"p\" was removed`) {
		t.Errorf("%d %s", code, got)
	}
}

func TestFollowLog(t *testing.T) {
	l := newLab(t)
	l.put(t, 1, "")
	// Nothing printed yet: the answer begins all the same.
	code, _, r := l.get(t, &corev1.PodLogOptions{Follow: true})
	if code != 200 {
		t.Fatal(code)
	}
	in := bufio.NewReader(r.Body)
	for i := range 3 {
		l.put(t, 1, fmt.Sprintf("%sstdout F line %d\n", at, i))
		if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("line %d\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	l.set("u1.other.0", container.Exited, container.Event{Kind: container.ContainerExited, ContainerID: "u1.other.0"})
	l.machine.tell(container.Event{Kind: container.Gap})
	l.put(t, 1, at+"stdout P the end")
	l.put(t, 1, "\n")
	l.set(running, container.Exited, container.Event{Kind: container.ContainerExited, ContainerID: running})
	if rest, err := io.ReadAll(in); err != nil || string(rest) != "the end" {
		t.Errorf("%q, %v", rest, err)
	}
	if id := <-l.drained; id != running {
		t.Errorf("drained %s", id)
	}
	l.streams.mu.Lock()
	defer l.streams.mu.Unlock()
	if len(l.streams.ears) > 0 {
		t.Errorf("still listening for %v", l.streams.ears)
	}
}

func TestFollowEndsWithItsClient(t *testing.T) {
	l := newLab(t)
	l.put(t, 1, at+"stdout F one\n")
	_, _, r := l.get(t, &corev1.PodLogOptions{Follow: true})
	if line, err := bufio.NewReader(r.Body).ReadString('\n'); line != "one\n" {
		t.Fatal(line, err)
	}
	r.Body.Close()
	listening := func() int {
		l.streams.mu.Lock()
		defer l.streams.mu.Unlock()
		return len(l.streams.ears)
	}
	for deadline := time.Now().Add(20 * time.Second); listening() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still followed")
		}
	}
}

func TestAttach(t *testing.T) {
	each(t, func(t *testing.T, l *lab, open func(string, any) remotecommand.Executor) {
		l.put(t, 1, at+"stdout F old\n")
		outR, outW := io.Pipe()
		errR, errW := io.Pipe()
		done := make(chan error, 1)
		e := open("attach", &corev1.PodAttachOptions{Stdout: true, Stderr: true})
		go func() {
			done <- e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: outW, Stderr: errW})
		}()
		if id := <-l.attached; id != running {
			t.Errorf("attached to %s", id)
		}
		l.put(t, 1, at+"stdout F out\n"+at+"stderr F err\n")
		out, errs := bufio.NewReader(outR), bufio.NewReader(errR)
		if line, err := out.ReadString('\n'); line != "out\n" {
			t.Fatal(line, err)
		}
		if line, err := errs.ReadString('\n'); line != "err\n" {
			t.Fatal(line, err)
		}
		l.set(running, container.Exited, container.Event{Kind: container.ContainerExited, ContainerID: running})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Stdin is that of the container of the test.
func (m *machine) Stdin(context.Context, string) (io.WriteCloser, error) { return m.stdin, nil }

func (m *machine) CloseStdin(context.Context, string) error {
	close(m.stdinClosed)
	return nil
}

func (m *machine) Resize(_ context.Context, _ string, size container.Size) error {
	m.resized <- size
	return nil
}

func TestAttachWithStdin(t *testing.T) {
	each(t, func(t *testing.T, l *lab, open func(string, any) remotecommand.Executor) {
		if strings.HasSuffix(t.Name(), "v4") {
			return // has no end of standard input
		}
		l.put(t, 1, "")
		l.pod.Spec.Containers[0].Stdin, l.pod.Spec.Containers[0].StdinOnce = true, true
		in, stdin := io.Pipe()
		l.stdin, l.stdinClosed = stdin, make(chan struct{})
		e := open("attach", &corev1.PodAttachOptions{Stdin: true, Stdout: true})
		done := make(chan error, 1)
		var out bytes.Buffer
		go func() {
			done <- e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("typed"), Stdout: &out})
		}()
		if typed, err := io.ReadAll(in); err != nil || string(typed) != "typed" {
			t.Errorf("%q, %v", typed, err)
		}
		<-l.stdinClosed
		<-l.attached
		l.put(t, 1, at+"stdout F answer\n")
		l.set(running, container.Exited, container.Event{Kind: container.ContainerExited, ContainerID: running})
		if err := <-done; err != nil || out.String() != "answer\n" {
			t.Errorf("%q, %v", &out, err)
		}
	})
}

func TestAttachWithTerminal(t *testing.T) {
	each(t, func(t *testing.T, l *lab, open func(string, any) remotecommand.Executor) {
		l.put(t, 1, "")
		l.pod.Spec.Containers[0].Stdin, l.pod.Spec.Containers[0].TTY = true, true
		in, stdin := io.Pipe()
		l.stdin, l.resized = stdin, make(chan container.Size, 2)
		q := make(queue, 1)
		q <- remotecommand.TerminalSize{Width: 80, Height: 24}
		defer close(q)
		typed, typing := io.Pipe()
		outR, outW := io.Pipe()
		e := open("attach", &corev1.PodAttachOptions{Stdin: true, Stdout: true, TTY: true})
		done := make(chan error, 1)
		go func() {
			done <- e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: typed, Stdout: outW, Tty: true, TerminalSizeQueue: q})
		}()
		if size := <-l.resized; size != (container.Size{Width: 80, Height: 24}) {
			t.Errorf("size %v", size)
		}
		<-l.attached
		screen := make([]byte, 2)
		l.put(t, 1, at+"stdout P $ \n") // no line yet
		if _, err := io.ReadFull(outR, screen); err != nil || string(screen) != "$ " {
			t.Fatalf("%q, %v", screen, err)
		}
		if _, err := typing.Write([]byte("\x04")); err != nil {
			t.Fatal(err)
		}
		key := make([]byte, 1)
		if _, err := in.Read(key); err != nil || key[0] != 4 {
			t.Errorf("%q, %v", key, err)
		}
		l.set(running, container.Exited, container.Event{Kind: container.ContainerExited, ContainerID: running})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRefused(t *testing.T) {
	waiting := func(reason string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
		}
	}
	two := func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "d"}) }
	for _, c := range []struct {
		change func(*corev1.Pod)
		what   string
		o      string
		code   int
		want   string
	}{
		{func(*corev1.Pod) {}, "log", `"container":"x"`, 400, "container x is not valid for pod p"},
		{two, "log", "", 400, "a container name must be specified for pod p, choose one of: [c d]"},
		{two, "log", `"container":"d"`, 400, `container "d" in pod "p" is waiting to start: ContainerCreating`},
		{func(p *corev1.Pod) { two(p); p.Annotations = map[string]string{defaultContainer: "d"} }, "exec", `"command":["x"]`, 400, `container "d" in pod "p" is waiting to start: ContainerCreating`},
		{waiting("ContainerCreating"), "log", "", 400, `container "c" in pod "p" is waiting to start: ContainerCreating`},
		{waiting("ErrImagePull"), "log", "", 400, `container "c" in pod "p" is waiting to start: image can't be pulled`},
		{waiting("ImagePullBackOff"), "attach", `"stdout":true`, 400, `container "c" in pod "p" is waiting to start: trying and failing to pull image`},
		{waiting("CrashLoopBackOff"), "log", `"previous":true`, 400, `previous terminated container "c" in pod "p" not found`},
		{func(*corev1.Pod) {}, "portforward", `"ports":[0]`, 400, "port 0 of pod p: must be between 1 and 65535"},
		{func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, ContainerID: "containerd://u1.c.1"}}
		}, "exec", `"command":["x"],"stdout":true`, 404, `container not found ("c"): it has terminated with exit code 3`},
		{func(*corev1.Pod) {}, "exec", `"stdout":true`, 400, "exec needs a command"},
		{func(*corev1.Pod) {}, "exec", `"command":["x"]`, 400, "you must specify at least 1 of stdin, stdout, stderr"},
		{func(p *corev1.Pod) { p.Status.ContainerStatuses[0].ContainerID = "containerd://strange" }, "log", "", 500, `Internal error occurred: container ID "strange" of container "c" in pod "p" has no attempt`},
	} {
		l := newLab(t)
		c.change(l.pod)
		r, err := http.Get(l.server.URL + "/" + c.what + "?o=" + url.QueryEscape("{"+c.o+"}"))
		if err != nil {
			t.Fatal(err)
		}
		var st metav1.Status
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(b, nil, &st); err != nil {
			t.Errorf("%s?%s: %v: %s", c.what, c.o, err, b)
		}
		if r.StatusCode != c.code || int(st.Code) != c.code || st.Message != c.want {
			t.Errorf("%s?%s: %d %s, want %d %s", c.what, c.o, r.StatusCode, st.Message, c.code, c.want)
		}
	}
}

func TestWhichLog(t *testing.T) {
	end := func(id string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: id}}
	}
	for name, c := range map[string]struct {
		status corev1.ContainerStatus
		want   string
	}{
		"ended":                       {corev1.ContainerStatus{State: end("containerd://u.c.2")}, "u.c.2"},
		"backing off":                 {corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}, LastTerminationState: end("containerd://u.c.1")}, "u.c.1"},
		"ended, the next never began": {corev1.ContainerStatus{State: end(""), LastTerminationState: end("u.c.0")}, "u.c.0"},
		"ended and lost":              {corev1.ContainerStatus{State: end("")}, `container "c" in pod "p" is terminated`},
		"nothing known":               {corev1.ContainerStatus{}, `container "c" in pod "p" is waiting to start - no logs yet`},
	} {
		p := thePod()
		c.status.Name = "c"
		p.Status.ContainerStatuses = nil
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{c.status}
		got, err := logOf(p, "c", false)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
