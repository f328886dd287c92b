// Troupe-keeper writes the logs of containers, and goes on doing so while the
// agent is away, which it starts again. The agent starts it; nobody else has to.
//
//	troupe-keeper --run-dir DIR   keeps logs
//	troupe-keeper init            is process 1 of a pod that shares its process namespace
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/troupe-sh/troupe/runtime/keeper/daemon"
	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "troupe-keeper:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "init" {
		return daemon.Init()
	}
	flags := flag.NewFlagSet("troupe-keeper", flag.ContinueOnError)
	runDir := flags.String("run-dir", "/run/troupe", "directory of the socket and of the state")
	readyFD := flags.Int("ready-fd", -1, "descriptor on which to say \"ok\", or what is wrong, once started")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	// Small garbage, few objects: collecting often costs little and keeps the process small.
	debug.SetGCPercent(25)
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()

	say := func(text string) {
		if *readyFD < 0 {
			return
		}
		ready := os.NewFile(uintptr(*readyFD), "ready")
		_, _ = ready.WriteString(text) // whoever started it may be gone
		_ = ready.Close()
		*readyFD = -1
	}
	err := daemon.Run(ctx, daemon.Config{
		RunDir: *runDir,
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Ready:  func() { say("ok") },
	})
	if err != nil {
		say(err.Error())
	}
	return err
}
