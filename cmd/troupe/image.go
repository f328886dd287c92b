package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/troupe-sh/troupe/messages"
)

func newImage(a *agent, streams genericiooptions.IOStreams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Load, pull, list and remove the machine's images",
		Run:   func(cmd *cobra.Command, _ []string) { _ = cmd.Help() },
	}
	cmd.AddCommand(newImageLoad(a, streams), newImagePull(a, streams), newImageList(a, streams), newImageRemove(a, streams))
	return cmd
}

func newImageLoad(a *agent, streams genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:   "load FILE...",
		Short: "Load image archives (docker save or OCI layout, tar, also gzipped)",
		Example: templates.Examples(`
			# Load what "docker save" wrote
			troupe image load web.tar

			# Load from another command
			docker save web:1 | troupe image load -`),
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			for _, name := range args {
				var r io.ReadCloser = io.NopCloser(streams.In)
				if name != "-" {
					if r, err = os.Open(name); err != nil {
						return err
					}
				}
				images, err := c.LoadImage(cmd.Context(), r)
				r.Close()
				if err != nil {
					return fmt.Errorf("load %s: %w", name, err)
				}
				for _, i := range images {
					fmt.Fprintf(streams.Out, "loaded %s\n", strings.Join(named(i), ", "))
				}
			}
			return nil
		},
	}
}

func newImageList(a *agent, streams genericiooptions.IOStreams) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the machine's images",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			images, err := c.Images(cmd.Context())
			if err != nil {
				return err
			}
			if format != "" {
				return printMessages(streams.Out, format, images)
			}
			rows := [][]string{{"NAME", "ID", "SIZE"}}
			for _, i := range images {
				id := strings.TrimPrefix(i.Id, "sha256:")
				for _, n := range named(i) {
					rows = append(rows, []string{n, id[:min(12, len(id))], megabytes(i.Size)})
				}
			}
			return printTable(streams.Out, rows)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "", "json or yaml")
	return cmd
}

func newImageRemove(a *agent, streams genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:   "rm IMAGE...",
		Short: "Remove images by name, digest or id",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			var failed []error
			for _, name := range args {
				if err := c.RemoveImage(cmd.Context(), name); err != nil {
					failed = append(failed, err)
					continue
				}
				fmt.Fprintf(streams.Out, "removed %s\n", name)
			}
			return errors.Join(failed...)
		},
	}
}

// named are an image's names, or its id if it has none.
func named(i *messages.Image) []string {
	if len(i.Names) > 0 {
		return i.Names
	}
	return []string{i.Id}
}

func megabytes(n int64) string {
	return resource.NewScaledQuantity((n+999_999)/1_000_000, resource.Mega).String()
}
