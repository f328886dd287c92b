package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/troupe-sh/troupe/cmd/internal/config"
	"github.com/troupe-sh/troupe/cmd/internal/place"
	"github.com/troupe-sh/troupe/sdk"
)

// pollInterval is how often a command looks whether the agent is where it
// should be; logTail is how much of its log is shown when it is not.
const (
	pollInterval = 25 * time.Millisecond
	logTail      = 20
)

// agentFlags are the settings of "up", which are trouped's: flags that were
// given are passed on as they are.
type agentFlags struct {
	flags  *pflag.FlagSet
	config config.Config
	file   string
}

func addAgentFlags(flags *pflag.FlagSet) *agentFlags {
	f := &agentFlags{flags: pflag.NewFlagSet("trouped", pflag.ContinueOnError), config: *config.Default()}
	config.AddFlags(f.flags, &f.config, "socket") // which every command has
	f.flags.StringVar(&f.file, "config", "", "A file with these settings and more; \"troupe config schema\" prints which")
	flags.AddFlagSet(f.flags)
	return f
}

func addDirFlags(flags *pflag.FlagSet, d *place.Dirs) {
	flags.StringVar(&d.Data, "data-dir", place.DataDir, "Where the agent keeps what survives a reboot")
	flags.StringVar(&d.Run, "run-dir", place.RunDir, "Where the agent keeps what does not")
}

// complete reads the file, over which flags go.
func (f *agentFlags) complete(socket string) error {
	given := map[*pflag.Flag]string{}
	f.flags.VisitAll(func(fl *pflag.Flag) {
		if fl.Changed {
			given[fl] = fl.Value.String()
		}
	})
	if f.file != "" {
		if err := config.Load(&f.config, f.file); err != nil {
			return err
		}
	}
	for fl, value := range given {
		if err := fl.Value.Set(value); err != nil {
			return fmt.Errorf("--%s: %w", fl.Name, err)
		}
	}
	if socket != "" {
		f.config.Socket = socket
	}
	return f.config.Complete()
}

// args are the flags that were given, for trouped.
func (f *agentFlags) args() []string {
	out := []string{"--socket=" + f.config.Socket}
	f.flags.VisitAll(func(fl *pflag.Flag) {
		if fl.Changed {
			out = append(out, "--"+fl.Name+"="+fl.Value.String())
		}
	})
	return out
}

// socketOf is the socket of an agent with these directories, unless one was named.
func socketOf(cmd *cobra.Command, a *agent, d place.Dirs) string {
	return cmp.Or(socketNamed(cmd, a), d.Socket())
}

// socketNamed is the socket that a flag or the environment names.
func socketNamed(cmd *cobra.Command, a *agent) string {
	if cmd.Flags().Changed("socket") || os.Getenv("TROUPE_SOCKET") != "" {
		return a.socket
	}
	return ""
}

func newUp(a *agent, streams genericiooptions.IOStreams) *cobra.Command {
	var detach, restart bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the agent on this machine",
		Long: templates.LongDesc(`
			Start the agent on this machine: trouped, found beside this command or on the PATH.

			It runs in the foreground, or with --detach in the background; the command then waits
			until the node is Ready. An agent in the background that crashes or is killed is
			started again by the keeper, which outlives it.

			Several agents run on one machine with directories, sockets and names of their own,
			each in a network namespace of its own.`),
		Example: templates.Examples(`
			# In the background
			troupe up --detach

			# A second one, in a network namespace of its own
			nsenter --net=/run/netns/b troupe up --detach --name b --data-dir /var/lib/b --run-dir /run/b`),
		Args: cobra.NoArgs,
	}
	f := addAgentFlags(cmd.Flags())
	cmd.Flags().BoolVar(&detach, "detach", false, "Run the agent in the background")
	cmd.Flags().BoolVar(&restart, "restart", true, "With --detach: start the agent again when it ends without \"troupe down\"")
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "How long to wait with --detach until the node is Ready")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.complete(socketNamed(cmd, a)); err != nil {
			return err
		}
		dirs := f.config.Dirs()
		a.socket = f.config.Socket
		trouped, err := findAgent()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), wait, fmt.Errorf("its node is not Ready after %s", wait))
		defer cancel()
		if pid, err := runningAgent(ctx, dirs); err != nil {
			return err
		} else if pid != 0 && detach {
			node, err := waitReady(ctx, a)
			if err != nil {
				return fmt.Errorf("the agent, process %d, runs already, but: %w", pid, err)
			}
			fmt.Fprintf(streams.Out, "node %s is Ready: the agent, process %d, runs already\n", node, pid)
			return nil
		} else if pid != 0 {
			return fmt.Errorf("an agent with the run directory %s is there already, process %d: stop it with \"troupe down\", or give this one other directories", dirs.Run, pid)
		}
		args := append([]string{trouped}, f.args()...)
		if !detach {
			return fmt.Errorf("run %s: %w", trouped, syscall.Exec(trouped, args, os.Environ()))
		}
		if restart {
			args = append(args, "--restart")
		}
		return startDetached(ctx, a, dirs, args, streams.Out)
	}
	return cmd
}

// runningAgent is the agent's process id, 0 if none runs. One that is coming up,
// because the keeper has started it again, is waited for.
func runningAgent(ctx context.Context, d place.Dirs) (int, error) {
	for {
		pid, err := d.PID()
		if pid != 0 || err != nil {
			return pid, err
		}
		if coming, err := comesBack(d); err != nil || !coming {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(pollInterval):
		}
	}
}

// comesBack tells whether the keeper has started an agent again that has not
// come so far as to write its process id: the file is of the one before.
func comesBack(d place.Dirs) (bool, error) {
	if !exists(d.PIDFile()) {
		return false, nil
	}
	return d.Taken()
}

// findAgent is the path of trouped: beside this command, or on the PATH.
func findAgent() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if p := filepath.Join(filepath.Dir(self), "trouped"); exists(p) {
		return p, nil
	}
	p, err := exec.LookPath("trouped")
	if err != nil {
		return "", fmt.Errorf("trouped stands neither in %s nor on the PATH: build it with \"make\" or put it there", filepath.Dir(self))
	}
	return filepath.Abs(p)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// startDetached runs the agent in a session of its own and returns when its
// node is Ready.
func startDetached(ctx context.Context, a *agent, d place.Dirs, args []string, out io.Writer) error {
	started := time.Now()
	if err := d.Own(); err != nil { // before the log is put there
		return err
	}
	if err := os.MkdirAll(d.Data, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(d.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	agent := exec.Command(args[0], args[1:]...)
	agent.Stdout, agent.Stderr = log, log
	agent.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := agent.Start(); err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	fmt.Fprintf(out, "agent started: process %d, log %s\n", agent.Process.Pid, d.Log())

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		err := agent.Wait()
		if coming, _ := comesBack(d); coming {
			return // the keeper was quicker: its agent is waited for
		}
		fail(fmt.Errorf("it ended: %v", ended(err)))
	}()
	node, err := waitReady(ctx, a)
	if err != nil {
		return fmt.Errorf("the agent did not come up: %w\nthe last lines of %s:\n%s", context.Cause(ctx), d.Log(), tail(d.Log(), from, logTail))
	}
	fmt.Fprintf(out, "node %s is Ready after %s\n", node, time.Since(started).Round(10*time.Millisecond))
	return nil
}

func ended(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// waitReady returns the node's name once it is Ready.
func waitReady(ctx context.Context, a *agent) (string, error) {
	c, err := a.ToRESTConfig()
	if err != nil {
		return "", err
	}
	nodes, err := kubernetes.NewForConfig(c)
	if err != nil {
		return "", err
	}
	own, err := sdk.Dial(a.socket)
	if err != nil {
		return "", err
	}
	defer own.Close()
	for name := ""; ; {
		if name == "" && a.answers() == nil {
			if v, err := own.Version(ctx); err == nil {
				name = v.Node
			}
		}
		if name != "" {
			n, err := nodes.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
			if err == nil && isReady(n) {
				return name, nil
			}
			if err != nil && apierrors.IsForbidden(err) {
				return "", err
			}
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(pollInterval):
		}
	}
}

func isReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// tail is the last n lines of the file, from an offset on.
func tail(path string, from int64, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if from < int64(len(b)) {
		b = b[from:]
	} else {
		b = nil
	}
	lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
