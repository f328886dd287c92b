package main

import (
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd/exec"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// newExec is kubectl's exec with an executor that reaches the agent's socket:
// its flags and its help, and its options filled from those flags.
func newExec(a *agent, f cmdutil.Factory, streams genericiooptions.IOStreams) *cobra.Command {
	cmd := exec.NewCmdExec(f, streams)
	cmd.Run = func(cmd *cobra.Command, args []string) {
		o := &exec.ExecOptions{
			StreamOptions: exec.StreamOptions{
				IOStreams:     streams,
				ContainerName: cmdutil.GetFlagString(cmd, "container"),
				Stdin:         cmdutil.GetFlagBool(cmd, "stdin"),
				TTY:           cmdutil.GetFlagBool(cmd, "tty"),
				Quiet:         cmdutil.GetFlagBool(cmd, "quiet"),
			},
			Executor: a,
		}
		o.Filenames = cmdutil.GetFlagStringSlice(cmd, "filename")
		cmdutil.CheckErr(o.Complete(f, cmd, args, cmd.ArgsLenAtDash()))
		cmdutil.CheckErr(o.Validate())
		cmdutil.CheckErr(o.Run())
	}
	return cmd
}
