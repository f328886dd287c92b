package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/troupe-sh/troupe/cmd/internal/place"
)

// stopWait is how long a process of Troupe's own has to end in order.
const stopWait = 10 * time.Second

func newDown(_ *agent, streams genericiooptions.IOStreams) *cobra.Command {
	var dirs place.Dirs
	var purge bool
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the agent and its pods",
		Long: templates.LongDesc(`
			Stop the agent of this machine, the containers of its pods and all that serves them.

			What the agent knows stays in its data directory: "troupe up" starts the pods again,
			as after a reboot. With --purge nothing is left: containers, images, mounts, network
			namespaces, cgroups, nftables tables and all files of the agent are removed, also
			when the agent itself is dead.`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getuid() != 0 {
				return errors.New("down stops processes and unmounts: run it as root")
			}
			dirs, err := dirs.Resolve()
			if err != nil {
				return err
			}
			s, known, err := dirs.Read()
			if err != nil {
				return err
			}
			if err := sameAgent(dirs, s, known); err != nil {
				return err
			}
			if err := sameNetwork(dirs); err != nil {
				return err
			}
			stopped, err := stopAgent(cmd.Context(), dirs)
			if err != nil {
				return err
			}
			if stopped {
				fmt.Fprintln(streams.Out, "agent stopped")
			}
			if !known {
				fmt.Fprintf(streams.Out, "no agent was started with the data directory %s: nothing to do\n", dirs.Data)
				return nil
			}
			w := sweep{dirs: dirs, settings: s}
			if w.here, err = inNetworkOf(s); err != nil {
				return err
			}
			if purge {
				if err := w.purge(cmd.Context(), grace); err != nil {
					return fmt.Errorf("purge: %w", err)
				}
				if !w.here {
					fmt.Fprintln(streams.Out, "everything removed, except what stands in the network namespace that the agent ran in, which is not this one")
					return nil
				}
				fmt.Fprintln(streams.Out, "everything removed")
				return nil
			}
			n, err := w.stop(cmd.Context(), grace)
			if err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "%d containers stopped; \"troupe up\" starts them again\n", n)
			return nil
		},
	}
	addDirFlags(cmd.Flags(), &dirs)
	cmd.Flags().BoolVar(&purge, "purge", false, "Also remove all that the agent made, its data included")
	cmd.Flags().DurationVar(&grace, "grace", 10*time.Second, "How long containers have to end after SIGTERM")
	return cmd
}

// sameAgent refuses directories of two agents: one of them would be stopped
// with the settings of the other.
func sameAgent(d place.Dirs, s place.Settings, known bool) error {
	if known && s.RunDir != d.Run {
		return fmt.Errorf("the agent with the data directory %s has the run directory %s, not %s: give both", d.Data, s.RunDir, d.Run)
	}
	pid, err := d.PID()
	if err == nil && pid != 0 && !known {
		err = fmt.Errorf("the agent with the run directory %s, process %d, has another data directory than %s: give both", d.Run, pid, d.Data)
	}
	return err
}

// inNetworkOf tells whether this is the network namespace that the agent ran
// in, as far as that can be known: after a reboot it has another name.
func inNetworkOf(s place.Settings) (bool, error) {
	here, err := place.Network()
	boot, _, _ := strings.Cut(here, " ")
	return here == s.Network || !strings.HasPrefix(s.Network, boot+" "), err
}

// sameNetwork refuses to work from another network namespace than the agent's:
// what it made there would not be found.
func sameNetwork(d place.Dirs) error {
	pid, err := d.PID()
	if err != nil || pid == 0 {
		return err
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil // it ended meanwhile
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	if theirs != ours {
		return fmt.Errorf("the agent, process %d, runs in another network namespace: run this command there (nsenter --net=/proc/%d/ns/net …)", pid, pid)
	}
	return nil
}

// stopAgent ends the agent in order, and with SIGKILL if it does not obey. It
// says whether one ran.
func stopAgent(ctx context.Context, d place.Dirs) (stopped bool, err error) {
	for deadline := time.Now().Add(stopWait); ; {
		pid, err := d.PID()
		if err != nil {
			return stopped, err
		}
		// Without this file the keeper starts no agent in place of one that ended.
		if err := os.Remove(d.PIDFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return stopped, err
		}
		if pid != 0 {
			if err := end(ctx, []int{pid}, place.IsAgent); err != nil {
				return true, err
			}
			stopped = true
			continue
		}
		taken, err := d.Taken()
		if err != nil || !taken || time.Now().After(deadline) {
			return stopped, err // what still comes up is ended with the rest of the agent's processes
		}
		select { // the keeper has just started one again
		case <-ctx.Done():
			return stopped, ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

// end stops processes with SIGTERM, those that do not obey with SIGKILL.
func end(ctx context.Context, pids []int, still func(pid int) bool) error {
	err := endBy(ctx, pids, still, syscall.SIGTERM)
	if errors.Is(err, errStillThere) {
		err = endBy(ctx, pids, still, syscall.SIGKILL)
	}
	return err
}

var errStillThere = errors.New("still there")

// endBy sends a signal and waits for up to stopWait until the processes are gone.
func endBy(ctx context.Context, pids []int, still func(pid int) bool, signal syscall.Signal) error {
	for _, pid := range pids {
		if !still(pid) {
			continue
		}
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
	}
	for deadline := time.Now().Add(stopWait); slices.ContainsFunc(pids, still); {
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v after %s: %w; /proc/PID/stack says what holds them", pids, signal, errStillThere)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollInterval):
		}
	}
	return nil
}
