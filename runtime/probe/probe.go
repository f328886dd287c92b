// Package probe asks running containers how they are, as Kubernetes' own agent
// does and with its code: over HTTP, TCP and gRPC from this machine to the
// pod's address, or by a command in the container.
package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	criclient "k8s.io/cri-client/pkg"
	kubeprobe "k8s.io/kubernetes/pkg/probe"
	execprobe "k8s.io/kubernetes/pkg/probe/exec"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
	"k8s.io/utils/exec"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// tries is how often it is tried to ask before that counts as impossible.
const tries = 3

// Prober asks. New makes one.
type Prober struct {
	runtime container.Runtime
	http    httpprobe.Prober
	tcp     tcpprobe.Prober
	grpc    grpcprobe.Prober
	exec    execprobe.Prober
}

// New returns a Prober that runs commands by r.
func New(r container.Runtime) *Prober {
	const followElsewhere = false // a redirect to another host is a warning
	return &Prober{runtime: r, http: httpprobe.New(followElsewhere), tcp: tcpprobe.New(), grpc: grpcprobe.New(), exec: execprobe.New()}
}

// Probe asks once. It takes the probe's time-out at most, three times that if
// asking itself fails.
func (p *Prober) Probe(ctx context.Context, t pod.Target, spec *corev1.Probe) pod.Answer {
	var a pod.Answer
	for range tries {
		result, output, err := p.ask(ctx, t, spec)
		a = pod.Answer{Outcome: pod.Outcome(result), Output: output, Err: err}
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return a
}

func (p *Prober) ask(ctx context.Context, t pod.Target, spec *corev1.Probe) (kubeprobe.Result, string, error) {
	timeout := time.Duration(spec.TimeoutSeconds) * time.Second
	switch {
	case spec.Exec != nil:
		return p.exec.Probe(&command{run: func() ([]byte, error) {
			return p.command(ctx, t, expand(spec.Exec.Command, t.Container.Env), timeout)
		}})
	case spec.HTTPGet != nil:
		request, err := httpprobe.NewRequestForHTTPGetAction(spec.HTTPGet, t.Container, t.Addr, "probe")
		if err != nil {
			return kubeprobe.Unknown, "", err
		}
		return p.http.Probe(request.WithContext(ctx), timeout)
	case spec.TCPSocket != nil:
		port, err := kubeprobe.ResolveContainerPort(spec.TCPSocket.Port, t.Container)
		if err != nil {
			return kubeprobe.Unknown, "", err
		}
		host := spec.TCPSocket.Host
		if host == "" {
			host = t.Addr
		}
		return p.tcp.Probe(host, port, timeout)
	case spec.GRPC != nil:
		service := ""
		if spec.GRPC.Service != nil {
			service = *spec.GRPC.Service
		}
		return p.grpc.Probe(t.Addr, service, int(spec.GRPC.Port), timeout)
	}
	return kubeprobe.Unknown, "", fmt.Errorf("missing probe handler for %s:%s", pod.Format(t.Pod), t.Container.Name)
}

// expand replaces $(NAME) by what the container's own definition gives NAME.
func expand(command []string, env []corev1.EnvVar) []string {
	values := map[string]string{}
	for _, e := range env {
		values[e.Name] = e.Value
	}
	var out []string
	for _, word := range command {
		out = append(out, expansion.Expand(word, expansion.MappingFuncFor(values)))
	}
	return out
}

// command runs one in the container, and returns what it wrote.
func (p *Prober) command(ctx context.Context, t pod.Target, words []string, timeout time.Duration) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var out output
	code, err := p.runtime.Exec(limited, t.ID, container.ExecSpec{Command: words, Stdout: &out, Stderr: &out})
	switch {
	case errors.Is(limited.Err(), context.DeadlineExceeded) && err != nil:
		return out.Bytes(), fmt.Errorf("%w: %q timed out after %s", criclient.ErrCommandTimedOut, strings.Join(words, " "), timeout)
	case err != nil:
		return out.Bytes(), err
	case code != 0:
		return out.Bytes(), exec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return out.Bytes(), nil
}

// outputMax is what is kept of it.
const outputMax = 10 << 10

// output is the beginning of what a command writes to both of its streams.
type output struct {
	mu sync.Mutex
	bytes.Buffer
}

// Write implements [io.Writer].
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Buffer.Write(b[:min(len(b), outputMax-o.Len())])
	return len(b), nil
}

// command is what Kubernetes' exec probe wants to be given: of an [exec.Cmd] it
// uses no more than this.
type command struct {
	exec.Cmd
	run func() ([]byte, error)
	out io.Writer
}

func (c *command) SetStdout(w io.Writer) { c.out = w }

func (c *command) SetStderr(io.Writer) {} // the same

func (c *command) Start() error {
	b, err := c.run()
	if _, werr := c.out.Write(b); err == nil {
		err = werr
	}
	return err
}

func (c *command) Wait() error { return nil }
