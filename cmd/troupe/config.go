package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	kubeconfig "k8s.io/kubectl/pkg/cmd/config"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/troupe-sh/troupe/cmd/internal/config"
)

// newConfig is kubectl's config, which looks at files alone, and beside it what
// is about an agent's own.
func newConfig(f cmdutil.Factory, streams genericiooptions.IOStreams) *cobra.Command {
	streams.ErrOut = renaming{streams.ErrOut}
	cmd := kubeconfig.NewCmdConfig(f, clientcmd.NewDefaultPathOptions(), streams)
	// Of all kubectl's flags that name a part of a kubeconfig it is the one that a command below asks for.
	cmd.PersistentFlags().String("context", "", "The name of the kubeconfig context to use")
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check FILE",
			Short: "Say whether a file is a configuration of an agent, or all that is wrong with it",
			Args:  cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				err := config.Check(args[0])
				var problems config.Problems
				switch {
				case errors.As(err, &problems):
					fmt.Fprintln(streams.Out, problems)
					return cmdutil.ErrExit
				case err != nil:
					return err
				}
				fmt.Fprintf(streams.Out, "%s: OK\n", args[0])
				return nil
			},
		},
		&cobra.Command{
			Use:   "schema",
			Short: "Print the JSON schema of an agent's configuration",
			Args:  cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				_, err := streams.Out.Write(config.Schema())
				return err
			},
		},
	)
	return cmd
}

// renaming puts troupe's name into what is said of kubectl.
type renaming struct{ io.Writer }

// Write implements [io.Writer].
func (r renaming) Write(p []byte) (int, error) {
	if _, err := r.Writer.Write(bytes.ReplaceAll(p, []byte("kubectl "), []byte("troupe "))); err != nil {
		return 0, err
	}
	return len(p), nil
}
