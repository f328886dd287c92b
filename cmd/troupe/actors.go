package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/troupe-sh/troupe/messages"
)

// watchInterval is how often "actors -w" looks again.
const watchInterval = time.Second

func newActors(a *agent, streams genericiooptions.IOStreams) *cobra.Command {
	var format string
	var watch bool
	cmd := &cobra.Command{
		Use:   "actors",
		Short: "Show the running supervision trees",
		Example: templates.Examples(`
			# The agent's actors with their state, mailbox length and restarts
			troupe actors

			# Go on printing those that change
			troupe actors -w

			# Also why each is there, and its last failure in full
			troupe actors -o wide

			# Make one fail on purpose, to see its supervisor restart it
			troupe actors restart control/scheduler`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if watch {
				return watchActors(cmd.Context(), c.Actors, streams.Out, format)
			}
			actors, err := c.Actors(cmd.Context())
			if err != nil {
				return err
			}
			return printActors(streams.Out, format, actors)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "", "wide, json or yaml")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "Go on printing the actors that change")
	cmd.AddCommand(&cobra.Command{
		Use:   "restart PATH",
		Short: "Make an actor fail, so that its supervisor restarts it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.RestartActor(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "%s told to fail\n", args[0])
			return nil
		},
	})
	return cmd
}

func printActors(w io.Writer, format string, actors []*messages.Actor) error {
	if format != "" && format != formatWide {
		return printMessages(w, format, actors)
	}
	head := []string{"ACTOR", "STATE", "MAILBOX", "RESTARTS", "LAST FAILURE"}
	if format == formatWide {
		head = append(head, "WHY")
	}
	return printTable(w, append([][]string{head}, rows(format, actors)...))
}

// rows draws the tree: each actor under its parent.
func rows(format string, actors []*messages.Actor) [][]string {
	actors = slices.SortedFunc(slices.Values(actors), func(a, b *messages.Actor) int {
		return slices.Compare(strings.Split(a.Path, "/"), strings.Split(b.Path, "/"))
	})
	out := make([][]string, 0, len(actors))
	for _, a := range actors {
		depth := strings.Count(a.Path, "/")
		name := strings.Repeat("  ", depth) + a.Path[strings.LastIndexByte(a.Path, '/')+1:]
		row := []string{name, a.State, strconv.FormatInt(a.Mailbox, 10), strconv.FormatInt(a.Restarts, 10), failure(format, a)}
		if format == formatWide {
			row = append(row, a.Why)
		}
		out = append(out, row)
	}
	return out
}

// failure is an actor's last one: its first words and how long ago, in full
// when there is room.
func failure(format string, a *messages.Actor) string {
	if a.LastFailure == "" {
		return "<none>"
	}
	text := strings.Join(strings.Fields(a.LastFailure), " ")
	if r := []rune(text); format != formatWide && len(r) > 60 {
		text = string(r[:59]) + "…"
	}
	if a.LastFailureTime == nil {
		return text
	}
	return fmt.Sprintf("%s (%s ago)", text, duration.HumanDuration(time.Since(a.LastFailureTime.AsTime())))
}

// watchActors prints all actors, and then each that is new, changed or gone.
// The table's columns stay as wide as the first one made them.
func watchActors(ctx context.Context, list func(context.Context) ([]*messages.Actor, error), w io.Writer, format string) error {
	known := map[string]*messages.Actor{}
	for first := true; ; first = false {
		actors, err := list(ctx)
		if err != nil {
			return err
		}
		var changed []*messages.Actor
		seen := map[string]bool{}
		for _, a := range actors {
			seen[a.Path] = true
			if old, ok := known[a.Path]; !ok || !proto.Equal(old, a) {
				changed = append(changed, a)
			}
			known[a.Path] = a
		}
		for path, a := range known {
			if !seen[path] {
				a.State = "Gone"
				changed = append(changed, a)
				delete(known, path)
			}
		}
		slices.SortFunc(changed, func(a, b *messages.Actor) int { return strings.Compare(a.Path, b.Path) })
		switch {
		case first:
			err = printActors(w, format, changed)
		case format != "" && format != formatWide && len(changed) > 0:
			err = printMessages(w, format, changed)
		default:
			for _, a := range changed {
				if _, err = fmt.Fprintf(w, "%s  %s  mailbox %d, %d restarts, last failure %s\n", a.Path, a.State, a.Mailbox, a.Restarts, failure(format, a)); err != nil {
					break
				}
			}
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchInterval):
		}
	}
}
