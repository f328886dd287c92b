package ctrd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/typeurl/v2"

	"github.com/troupe-sh/troupe/runtime/container"
)

// Exec implements [container.Runtime].
func (r *Runtime) Exec(ctx context.Context, id string, e container.ExecSpec) (int, error) {
	code, err := r.exec(r.in(ctx), id, e)
	if err != nil {
		return 0, r.taskError(ctx, "exec in", id, err)
	}
	return code, nil
}

func (r *Runtime) exec(ctx context.Context, id string, e container.ExecSpec) (int, error) {
	process, err := r.processOf(ctx, id)
	if err != nil {
		return 0, err
	}
	if len(e.Command) == 0 {
		return 0, fmt.Errorf("no command: %w", container.ErrInvalid)
	}
	process.Args, process.Terminal = e.Command, e.TTY
	if e.TTY {
		process.Env = append(process.Env, "TERM=xterm")
	}
	spec, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return 0, err
	}

	execID := "exec-" + rand.Text()
	// What must happen also when ctx has ended.
	after := context.WithoutCancel(ctx)
	runs, ended := make(chan struct{}), make(chan struct{})
	defer close(ended)
	stdin := e.Stdin
	if stdin != nil {
		stdin = &input{Reader: e.Stdin, runs: runs, ended: ended, end: func() {
			_, _ = r.tasks.CloseIO(after, &tasks.CloseIORequest{ContainerID: id, ExecID: execID, Stdin: true})
		}}
	}
	stdout, stderr := e.Stdout, e.Stderr
	if e.Stdin != nil || e.Stdout != nil || e.Stderr != nil { // the shim takes all or none
		if stdout == nil {
			stdout = io.Discard
		}
		if stderr == nil {
			stderr = io.Discard
		}
	}
	opts := []cio.Opt{cio.WithFIFODir(r.ioDir(id)), cio.WithStreams(stdin, stdout, stderr)}
	if e.TTY {
		opts = append(opts, cio.WithTerminal)
	}
	stdio, err := cio.NewCreator(opts...)(execID)
	if err != nil {
		return 0, err
	}
	defer stdio.Close()
	fifos := stdio.Config()
	wait := func(ctx context.Context) (uint32, error) {
		got, err := r.tasks.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: execID})
		return got.GetExitStatus(), err
	}
	remove := func(ctx context.Context) error {
		_, err := r.tasks.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: id, ExecID: execID})
		return err
	}
	// fail leaves no process behind. What it cannot remove goes with the container.
	fail := func(err error) (int, error) {
		stdio.Cancel()
		clean, cancel := context.WithTimeout(after, cleanTimeout)
		defer cancel()
		if ctx.Err() != nil {
			err = ctx.Err()
			if _, err := r.tasks.Kill(clean, &tasks.KillRequest{ContainerID: id, ExecID: execID, Signal: uint32(syscall.SIGKILL)}); err == nil {
				_, _ = wait(clean)
			}
		}
		_ = remove(clean)
		return 0, commandError(kind(err))
	}
	if _, err := r.tasks.Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: id, ExecID: execID, Spec: spec,
		Stdin: fifos.Stdin, Stdout: fifos.Stdout, Stderr: fifos.Stderr, Terminal: e.TTY,
	}); err != nil {
		return fail(err)
	}
	if _, err := r.tasks.Start(ctx, &tasks.StartRequest{ContainerID: id, ExecID: execID}); err != nil {
		return fail(err)
	}
	close(runs)
	if e.Resize != nil {
		go r.resizeExec(after, id, execID, e.Resize, ended)
	}
	code, err := wait(ctx)
	if err != nil {
		return fail(err)
	}
	// Its end of the FIFOs closes with it: then everything has been copied.
	if err := remove(after); err != nil && !errors.Is(kind(err), container.ErrNotFound) {
		return fail(err)
	}
	stdio.Wait()
	return int(code), nil
}

// cleanTimeout is how long a process whose time is over may take to go.
const cleanTimeout = 10 * time.Second

// input ends a process's standard input when it is read to its end: the shim
// keeps it open until it is told so, once the process runs.
type input struct {
	io.Reader
	runs, ended <-chan struct{}
	end         func()
}

func (i *input) Read(p []byte) (int, error) {
	n, err := i.Reader.Read(p)
	if err != nil {
		select {
		case <-i.runs:
			i.end()
		case <-i.ended:
		}
	}
	return n, err
}

// resizeExec passes on the sizes of a terminal until the process has ended.
func (r *Runtime) resizeExec(ctx context.Context, id, execID string, sizes <-chan container.Size, ended <-chan struct{}) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return
			}
			_, err := r.tasks.ResizePty(ctx, &tasks.ResizePtyRequest{
				ContainerID: id, ExecID: execID, Width: uint32(size.Width), Height: uint32(size.Height),
			})
			if err != nil {
				r.c.Log.Debug("terminal not resized", "container", id, "error", err)
			}
		case <-ended:
			return
		}
	}
}
