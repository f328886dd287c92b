package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// newClusterInfo stands for kubectl's, which lists services first of all and
// knows the agent by a URL that leads nowhere.
func newClusterInfo(a *agent, f cmdutil.Factory, streams genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:   "cluster-info",
		Short: "Say where the API is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := a.answers(); err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "Kubernetes control plane is running at unix://%s\n", a.socket)
			return nil
		},
	}
}
