package main

import (
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd/top"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"
)

// newTop is kubectl's top; what it says about where the numbers come from is
// of an installation that is not needed here.
func newTop(f cmdutil.Factory, streams genericiooptions.IOStreams) *cobra.Command {
	cmd := top.NewCmdTop(f, streams)
	cmd.Long = templates.LongDesc(`
		Display resource (CPU/memory) usage of nodes and pods.

		Each agent measures its machine and its pods every 15 seconds while somebody asks, and
		once a minute otherwise: CPU is the mean between two looks, memory the working set at
		the last one. A pod is shown once there are two looks at each of its containers, which
		takes up to 15 seconds from its start.`)
	return cmd
}
