package main

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/troupe-sh/troupe/cmd/internal/build"
)

func newVersion(a *agent, streams genericiooptions.IOStreams) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this command and of the agent",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			type version struct {
				Troupe     string `json:"troupe"`
				Kubernetes string `json:"kubernetes"`
				Go         string `json:"go"`
				Node       string `json:"node,omitempty"`
			}
			out := struct {
				Client version  `json:"client"`
				Agent  *version `json:"agent,omitempty"`
			}{Client: version{Troupe: build.Version(), Kubernetes: build.Kubernetes(), Go: runtime.Version()}}
			c, err := a.client()
			if err == nil {
				defer c.Close()
				v, failed := c.Version(cmd.Context())
				if err = failed; err == nil {
					out.Agent = &version{Troupe: v.Troupe, Kubernetes: v.Kubernetes, Go: v.Go, Node: v.Node}
				}
			}
			var none errNoAgent
			if err != nil && !errors.As(err, &none) {
				return err
			}
			if format != "" {
				return printValue(streams.Out, format, out)
			}
			fmt.Fprintf(streams.Out, "Client: troupe %s, Kubernetes API %s, %s\n", out.Client.Troupe, out.Client.Kubernetes, out.Client.Go)
			if out.Agent == nil {
				fmt.Fprintf(streams.Out, "Agent:  none: %v\n", err)
				return nil
			}
			fmt.Fprintf(streams.Out, "Agent:  troupe %s, Kubernetes API %s, %s, node %s\n", out.Agent.Troupe, out.Agent.Kubernetes, out.Agent.Go, out.Agent.Node)
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "", "json or yaml")
	return cmd
}
