package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/troupe-sh/troupe/cmd/internal/build"
	"github.com/troupe-sh/troupe/cmd/internal/doctor"
	"github.com/troupe-sh/troupe/sdk"
)

// askTimeout is how long an agent has to say how it fares.
const askTimeout = 5 * time.Second

func newDoctor(a *agent, streams genericiooptions.IOStreams) *cobra.Command {
	var s doctor.Subject
	var pods, format string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say whether this machine is fit, and what to do if not",
		Long: templates.LongDesc(`
			Say whether this machine is fit to run an agent: kernel, control groups, network,
			containerd, room, limits, clock, and the agent itself if one runs.

			A line for each check: OK, WARN or FAIL, what was found, and what to do. It changes
			nothing, works without an agent and, as far as it can, without root. The exit code
			is 1 if a check fails.`),
		Example: templates.Examples(`
			# Is this machine fit?
			troupe doctor

			# For a script
			troupe doctor -o json`),
		Args: cobra.NoArgs,
	}
	addDirFlags(cmd.Flags(), &s.Dirs)
	cmd.Flags().StringVar(&s.Name, "name", "", "This machine's name in the cluster (default its host name)")
	cmd.Flags().StringVar(&s.Containerd, "containerd", "", "The socket of the containerd to use (default the machine's own if it answers, else one that the agent runs itself)")
	cmd.Flags().StringVar(&pods, "pod-cidr", "10.244.0.0/16", "The addresses of all pods of the cluster")
	cmd.Flags().StringVarP(&format, "output", "o", "", "json or yaml")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if s.Dirs, err = s.Dirs.Resolve(); err != nil {
			return err
		}
		if s.PodCIDR, err = netip.ParsePrefix(pods); err != nil {
			return fmt.Errorf("--pod-cidr: %w", err)
		}
		a.socket = socketOf(cmd, a, s.Dirs)
		s.Socket, s.Version = a.socket, build.Version()
		// What an agent was started with counts, unless it is named.
		if last, known, err := s.Dirs.Read(); err == nil && known {
			if !cmd.Flags().Changed("containerd") {
				s.Containerd = last.Containerd
			}
			if was, err := netip.ParsePrefix(last.PodCIDR); err == nil && !cmd.Flags().Changed("pod-cidr") {
				s.PodCIDR = was
			}
		}
		found := doctor.Examine(cmd.Context(), doctor.Machine{Ask: a.fares}, s)
		if err := printFindings(streams.Out, format, found); err != nil {
			return err
		}
		if !doctor.Fit(found) {
			return cmdutil.ErrExit
		}
		return nil
	}
	return cmd
}

func printFindings(w io.Writer, format string, all []doctor.Finding) error {
	if format != "" {
		return printValue(w, format, map[string]any{"fit": doctor.Fit(all), "checks": all})
	}
	rows := make([][]string, 0, len(all))
	for _, f := range all {
		text := f.Found
		if f.Remedy != "" {
			text += " => " + f.Remedy
		}
		rows = append(rows, []string{string(f.Status), f.Check, text})
	}
	return printTable(w, rows)
}

// fares asks the agent how it does.
func (a *agent) fares(ctx context.Context, s doctor.Subject) (out doctor.Agent, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	own, err := sdk.Dial(s.Socket)
	if err != nil {
		return out, err
	}
	defer own.Close()
	v, err := own.Version(ctx)
	if err != nil {
		return out, err
	}
	out.Version, out.Node = v.Troupe, v.Node
	c, err := a.ToRESTConfig()
	if err != nil {
		return out, err
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return out, err
	}
	node, err := client.CoreV1().Nodes().Get(ctx, v.Node, metav1.GetOptions{})
	if err != nil {
		return out, err
	}
	if out.Ready = isReady(node); !out.Ready {
		out.NotReady = "it has not reported yet"
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady {
				out.NotReady = c.Message
			}
		}
	}
	return out, nil
}
