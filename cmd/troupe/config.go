package main

import (
	"bytes"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubectl/pkg/cmd/config"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// newConfig is kubectl's config, which looks at files alone.
func newConfig(f cmdutil.Factory, streams genericiooptions.IOStreams) *cobra.Command {
	streams.ErrOut = renaming{streams.ErrOut}
	cmd := config.NewCmdConfig(f, clientcmd.NewDefaultPathOptions(), streams)
	// Of all kubectl's flags that name a part of a kubeconfig it is the one that a command below asks for.
	cmd.PersistentFlags().String("context", "", "The name of the kubeconfig context to use")
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
