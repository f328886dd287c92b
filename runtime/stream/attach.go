package stream

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/logs"
)

// ServeAttach connects a client to a container's first process: what it prints
// from now on until it ends, its standard input and terminal if it has them.
//
// What it prints is read from its log, so that a client that reads slowly never
// holds the container up.
func (s *Streams) ServeAttach(w http.ResponseWriter, r *http.Request, p *corev1.Pod, o *corev1.PodAttachOptions) {
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
	path, err := s.path(p, name, id)
	if err != nil {
		refuse(w, err)
		return
	}
	c := specOf(p, name)
	// What a container has not is not taken from the client either; it may be sent all the same.
	var stdin io.WriteCloser
	if o.Stdin && c.Stdin {
		if stdin, err = s.c.Runtime.Stdin(r.Context(), id); err != nil {
			refuse(w, apierrors.NewInternalError(fmt.Errorf("attach to container %q in pod %q: %w", name, p.Name, err)))
			return
		}
		defer stdin.Close()
	}
	serve(w, r, &remotecommand.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr && !o.TTY, TTY: o.TTY},
		func(ctx context.Context, in io.Reader, out, errs io.WriteCloser, resize <-chan remotecommand.TerminalSize) error {
			if stdin != nil {
				go s.feed(ctx, id, c, in, stdin)
			}
			if c.TTY && o.TTY {
				go s.resize(ctx, id, resize)
			}
			outputs := map[string]io.Writer{}
			if o.Stdout {
				outputs["stdout"] = out
			}
			if o.Stderr && !o.TTY {
				outputs["stderr"] = errs
			}
			return s.print(ctx, id, path, outputs)
		})
}

// print writes what a container prints from now on until its end.
func (s *Streams) print(ctx context.Context, id, path string, outputs map[string]io.Writer) error {
	ended := s.ended(ctx, id)
	if len(outputs) == 0 {
		select {
		case <-ended:
		case <-ctx.Done():
		}
		return nil
	}
	live, cancel := context.WithCancel(ctx)
	defer cancel()
	all, ctx := errgroup.WithContext(ctx)
	var begun []<-chan struct{}
	for stream, w := range outputs {
		settled := make(chan struct{})
		begun = append(begun, settled)
		all.Go(func() error {
			return logs.Read(ctx, path, logs.Options{Follow: true, Ended: ended, Stream: stream, Begun: settled}, w)
		})
	}
	go func() {
		for _, settled := range begun { // or the beginning of a line is in the log before anybody reads it
			select {
			case <-settled:
			case <-ctx.Done():
				return
			}
		}
		if err := s.c.Attach(live, id); err != nil {
			s.c.Log.Warn("output is shown line by line", "container", id, "error", err)
		}
	}()
	return all.Wait()
}

// feed passes on what the client types. The end of it is that of the
// container's standard input if the container is to have just one client.
func (s *Streams) feed(ctx context.Context, id string, c *corev1.Container, in io.Reader, stdin io.WriteCloser) {
	_, _ = io.Copy(stdin, in)
	stdin.Close()
	if !c.StdinOnce || c.TTY {
		return
	}
	// Also, and above all, when the client has gone.
	if err := s.c.Runtime.CloseStdin(context.WithoutCancel(ctx), id); err != nil {
		s.c.Log.Debug("standard input not closed", "container", id, "error", err)
	}
}

func (s *Streams) resize(ctx context.Context, id string, sizes <-chan remotecommand.TerminalSize) {
	for size := range sizes {
		if err := s.c.Runtime.Resize(ctx, id, container.Size{Width: size.Width, Height: size.Height}); err != nil {
			s.c.Log.Debug("terminal not resized", "container", id, "error", err)
		}
	}
}

// specOf a container of p, which has it.
func specOf(p *corev1.Pod, name string) *corev1.Container {
	for _, of := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range of {
			if of[i].Name == name {
				return &of[i]
			}
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if e := &p.Spec.EphemeralContainers[i]; e.Name == name {
			return (*corev1.Container)(&e.EphemeralContainerCommon)
		}
	}
	return &corev1.Container{Name: name}
}
