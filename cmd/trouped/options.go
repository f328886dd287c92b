package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/troupe-sh/troupe/cmd/internal/config"
)

// options are the agent's settings: from the file of --config, then from the
// flags that were given.
type options struct {
	config.Config
	Restart bool     // by the keeper, when the agent ends without having been told to
	args    []string // that they come from

	pods  netip.Prefix
	level slog.Level
}

// parse reads flags and file, and checks them.
func parse(args []string) (*options, error) {
	o := &options{Config: *config.Default(), args: args}
	host, hostErr := os.Hostname()
	o.Name = strings.ToLower(host)
	var file string
	find := pflag.NewFlagSet("trouped", pflag.ContinueOnError)
	find.ParseErrorsAllowlist.UnknownFlags = true
	find.Usage = func() {}
	find.StringVar(&file, "config", "", "")
	if err := find.Parse(args); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return nil, err
	}
	if file != "" {
		if err := config.Load(&o.Config, file); err != nil {
			return nil, err
		}
	}
	flags := pflag.NewFlagSet("trouped", pflag.ContinueOnError)
	flags.StringVar(&file, "config", file, "A file with these settings and more; \"troupe config schema\" prints which")
	config.AddFlags(flags, &o.Config)
	flags.BoolVar(&o.Restart, "restart", false, "Have the keeper start the agent again when it ends without having been told to")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: trouped takes flags only", flags.Arg(0))
	}
	if o.Name == "" {
		return nil, fmt.Errorf("this machine's host name: %w; give one with --name", hostErr)
	}
	return o, o.complete()
}

// complete checks what is there together, and fills in what follows from it.
func (o *options) complete() (err error) {
	if err := o.Complete(); err != nil {
		return err
	}
	if o.pods, err = netip.ParsePrefix(o.PodCIDR); err != nil {
		return fmt.Errorf("--pod-cidr: %w", err)
	}
	o.pods = o.pods.Masked()
	// The agent removes what it finds in either and nobody wants.
	o.ContainerdNamespace, o.CgroupParent = cmp.Or(o.ContainerdNamespace, o.Dirs().Name()), cmp.Or(o.CgroupParent, o.Dirs().Name())
	return o.level.UnmarshalText([]byte(o.LogLevel))
}
