package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/util/templates"
	"k8s.io/kubectl/pkg/util/term"

	"github.com/troupe-sh/troupe/messages"
)

// longestPassword is more than any registry takes.
const longestPassword = 64 << 10

func newImagePull(a *agent, streams genericiooptions.IOStreams) *cobra.Command {
	var format, username string
	var stdin bool
	cmd := &cobra.Command{
		Use:   "pull NAME...",
		Short: "Pull images from their registries",
		Long: templates.LongDesc(`
			Pull images from their registries, whatever is here already.

			Without --username the credentials are those of "docker login" (DOCKER_CONFIG, or config.json in ~/.docker)
			or "podman login", if they have some for the registry. How a registry is reached stands in the agent's
			certs directory: see "troupe up --help".`),
		Example: templates.Examples(`
			# Pull an image
			troupe image pull nginx:1.27

			# Pull one that is not for everybody
			troupe image pull registry.example.com/web:1 --username alice --password-stdin < password`),
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if stdin != (username != "") {
				return errors.New("give --username and --password-stdin together, or neither")
			}
			password := ""
			if stdin {
				b, err := io.ReadAll(io.LimitReader(streams.In, longestPassword))
				if err != nil {
					return fmt.Errorf("--password-stdin: %w", err)
				}
				if password = strings.TrimRight(string(b), "\r\n"); password == "" {
					return errors.New("--password-stdin: standard input is empty")
				}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			shown := &pullDisplay{out: streams.ErrOut, terminal: term.TTY{Out: streams.ErrOut}.IsTerminalOut()}
			var pulled []*messages.Image
			var failed []error
			for _, image := range args {
				m := &messages.PullImage{Name: image, Username: username, Password: password}
				if !stdin {
					if m.Username, m.Password, err = login(image); err != nil {
						failed = append(failed, err)
						continue
					}
				}
				shown.begin(image)
				i, err := c.PullImage(cmd.Context(), m, shown.step)
				shown.end()
				if err != nil {
					failed = append(failed, err)
					continue
				}
				if pulled = append(pulled, i); format == "" {
					fmt.Fprintf(streams.Out, "pulled %s (%s, %s)\n", image, i.Id, megabytes(i.Size))
				}
			}
			if format != "" && len(pulled) > 0 {
				failed = append(failed, printMessages(streams.Out, format, pulled))
			}
			return errors.Join(failed...)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "", "json or yaml")
	cmd.Flags().StringVarP(&username, "username", "u", "", "The name to show the registry")
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "Read the password from standard input")
	return cmd
}

// login is what this user has for the registry of an image.
func login(image string) (username, password string, err error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", "", nil // the agent says what is wrong with it
	}
	found, err := authn.DefaultKeychain.Resolve(ref.Context())
	if err == nil {
		var c *authn.AuthConfig
		if c, err = found.Authorization(); err == nil {
			if c.IdentityToken != "" {
				return "", c.IdentityToken, nil // in place of a password
			}
			return c.Username, c.Password, nil
		}
	}
	return "", "", fmt.Errorf("look for a login at %s: %w; give --username and --password-stdin", ref.Context().RegistryStr(), err)
}

// pullDisplay shows how far a pull is: on a terminal by a line that changes,
// elsewhere by a line for each layer.
type pullDisplay struct {
	out      io.Writer
	terminal bool
	image    string
	last     string
	layers   int64
}

func (d *pullDisplay) begin(image string) {
	d.image, d.last, d.layers = image, "", 0
	if !d.terminal {
		fmt.Fprintf(d.out, "pulling %s\n", image)
	}
}

func (d *pullDisplay) step(s *messages.PullStep) {
	line := fmt.Sprintf("%s: %d of %d layers, %s of %s", d.image, s.LayersHere, s.Layers, megabytes(s.BytesHere), megabytes(s.Bytes))
	if s.Layers == 0 || line == d.last {
		return
	}
	switch {
	case d.terminal:
		fmt.Fprintf(d.out, "\r\x1b[K%s", line)
	case s.LayersHere > d.layers:
		fmt.Fprintln(d.out, line)
	}
	d.last, d.layers = line, s.LayersHere
}

// end clears the line.
func (d *pullDisplay) end() {
	if d.terminal {
		fmt.Fprint(d.out, "\r\x1b[K")
	}
}
