package main

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"sync/atomic"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/kubectl/pkg/cmd/cp"
	"k8s.io/kubectl/pkg/cmd/exec"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// newCp is kubectl's cp, and fails when what it copies out of a container is
// not there: kubectl's ends with the archive, which is whole and empty then,
// and never hears what became of the tar that wrote it.
func newCp(f cmdutil.Factory, streams genericiooptions.IOStreams) *cobra.Command {
	cmd := cp.NewCmdCp(f, streams)
	streams.Out = streams.ErrOut // where tar complains
	cmd.Run = func(cmd *cobra.Command, args []string) {
		o := cp.NewCopyOptions(streams)
		o.Container = cmdutil.GetFlagString(cmd, "container")
		o.NoPreserve = cmdutil.GetFlagBool(cmd, "no-preserve")
		o.MaxTries = cmdutil.GetFlagInt(cmd, "retries")
		cmdutil.CheckErr(o.Complete(f, cmd, args))
		cmdutil.CheckErr(o.Validate())
		c := &copying{over: make(chan struct{}), ended: make(chan error, 1)}
		o.Executor = c
		cmdutil.CheckErr(c.end(o.Run()))
	}
	return cmd
}

// copying runs tar in containers and remembers how the one ended that writes.
type copying struct {
	exec.DefaultRemoteExecutor
	writes atomic.Bool
	over   chan struct{} // closed when nobody reads any more
	ended  chan error
}

// end is how it all ended, where err is how it went on this side.
func (c *copying) end(err error) error {
	close(c.over)
	if !c.writes.Load() {
		return err
	}
	if err == nil {
		return <-c.ended
	}
	select {
	case cause := <-c.ended:
		if cause != nil {
			return cause
		}
	default: // it may wait for a reader for ever
	}
	return err
}

// Execute implements [exec.RemoteExecutor].
func (c *copying) Execute(u *url.URL, config *rest.Config, stdin io.Reader, stdout, stderr io.Writer, tty bool, sizes remotecommand.TerminalSizeQueue) error {
	return c.ExecuteWithContext(context.Background(), u, config, stdin, stdout, stderr, tty, sizes)
}

// ExecuteWithContext implements [exec.RemoteExecutor].
func (c *copying) ExecuteWithContext(ctx context.Context, u *url.URL, config *rest.Config, stdin io.Reader, stdout, stderr io.Writer, tty bool, sizes remotecommand.TerminalSizeQueue) error {
	if stdin != nil || u.Query().Get("command") == "test" {
		return c.DefaultRemoteExecutor.ExecuteWithContext(ctx, u, config, stdin, stdout, stderr, tty, sizes)
	}
	c.writes.Store(true)
	// What pads an archive is not read; it must not hold up the one who sends it.
	padding := make(buffered, 64)
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		for chunk := range padding {
			if _, err := stdout.Write(chunk); err != nil {
				return
			}
		}
	}()
	err := c.DefaultRemoteExecutor.ExecuteWithContext(ctx, u, config, stdin, padding, stderr, tty, sizes)
	close(padding)
	select {
	case <-copied:
	case <-c.over:
	}
	select {
	case <-c.ended: // of an attempt before this
	default:
	}
	c.ended <- err
	return nil // said once, by end
}

type buffered chan []byte

// Write implements [io.Writer].
func (b buffered) Write(p []byte) (int, error) {
	b <- bytes.Clone(p)
	return len(p), nil
}
