package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"

	"github.com/troupe-sh/troupe/runtime/container"
)

// As kubelet does.
const (
	idleTimeout     = 4 * time.Hour
	creationTimeout = remotecommand.DefaultStreamCreationTimeout
)

// action is what a client's streams are connected to. An error that is a
// [utilexec.ExitError] is an exit code.
type action func(ctx context.Context, in io.Reader, out, errs io.WriteCloser, resize <-chan remotecommand.TerminalSize) error

// ServeExec runs a process in a container. When the client goes, it is killed.
func (s *Streams) ServeExec(w http.ResponseWriter, r *http.Request, p *corev1.Pod, o *corev1.PodExecOptions) {
	name, err := containerName(p, o.Container)
	if err != nil {
		refuse(w, err)
		return
	}
	id, err := runningOf(p, name)
	if err != nil {
		refuse(w, err)
		return
	}
	if len(o.Command) == 0 {
		refuse(w, apierrors.NewBadRequest("exec needs a command"))
		return
	}
	serve(w, r, &remotecommand.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr && !o.TTY, TTY: o.TTY},
		func(ctx context.Context, in io.Reader, out, errs io.WriteCloser, resize <-chan remotecommand.TerminalSize) error {
			// What was not asked for may be there all the same, and lead nowhere.
			spec := container.ExecSpec{Command: o.Command, TTY: o.TTY, Stdout: io.Discard, Stderr: io.Discard}
			if o.Stdin {
				spec.Stdin = in
			}
			if o.Stdout {
				spec.Stdout = out
			}
			if o.Stderr && !o.TTY {
				spec.Stderr = errs
			}
			if o.TTY {
				spec.Resize = sizes(ctx, resize)
			}
			code, err := s.c.Runtime.Exec(ctx, id, spec)
			if err == nil && code != 0 {
				err = utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
			}
			return err
		})
}

// sizes translates.
func sizes(ctx context.Context, in <-chan remotecommand.TerminalSize) <-chan container.Size {
	out := make(chan container.Size)
	go func() {
		defer close(out)
		for size := range in {
			select {
			case out <- container.Size{Width: size.Width, Height: size.Height}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// serve opens the client's streams and connects do to them.
func serve(w http.ResponseWriter, r *http.Request, o *remotecommand.Options, do action) {
	if !o.Stdin && !o.Stdout && !o.Stderr {
		refuse(w, apierrors.NewBadRequest("you must specify at least 1 of stdin, stdout, stderr"))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	w, r = &hijackable{ResponseWriter: w, gone: cancel}, r.WithContext(ctx)
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		serveWebSocket(w, r, o, do)
		return
	}
	remotecommand.ServeExec(w, r, do, "", "", "", nil, o, idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

// ExecInContainer implements [remotecommand.Executor].
func (do action) ExecInContainer(ctx context.Context, _, _, _ string, _ []string, in io.Reader, out, errs io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	err := do(ctx, in, out, errs, resize)
	// remotecommand looks at the error itself, not at what it wraps.
	var exit utilexec.CodeExitError
	if errors.As(err, &exit) {
		return exit
	}
	return err
}
