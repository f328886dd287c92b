package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/troupe-sh/troupe/cmd/internal/place"
)

// options are the agent's settings: from the file of --config, then from the
// flags that were given.
type options struct {
	Name                string       `json:"name,omitempty"`
	DataDir             string       `json:"dataDir,omitempty"`
	RunDir              string       `json:"runDir,omitempty"`
	Socket              string       `json:"socket,omitempty"`
	Containerd          string       `json:"containerd,omitempty"`
	ContainerdNamespace string       `json:"containerdNamespace,omitempty"`
	CgroupParent        string       `json:"cgroupParent,omitempty"`
	PodCIDR             string       `json:"podCIDR,omitempty"`
	LogLevel            string       `json:"logLevel,omitempty"`
	RestartBackoff      metaDuration `json:"restartBackoff,omitempty"`
	Restart             bool         `json:"-"` // by the keeper, when the agent ends without having been told to
	CertsDir            string       `json:"certsDir,omitempty"`

	pods  netip.Prefix
	level slog.Level
}

// metaDuration is a duration as people write it: 10s.
type metaDuration struct{ time.Duration }

// UnmarshalJSON implements [json.Unmarshaler].
func (d *metaDuration) UnmarshalJSON(b []byte) (err error) {
	d.Duration, err = time.ParseDuration(strings.Trim(string(b), `"`))
	return err
}

func (o *options) dirs() place.Dirs { return place.Dirs{Data: o.DataDir, Run: o.RunDir} }

// parse reads flags and file, and checks them.
func parse(args []string) (*options, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("this machine's host name: %w; give one with --name", err)
	}
	o := &options{
		Name: strings.ToLower(host), DataDir: place.DataDir, RunDir: place.RunDir,
		PodCIDR: "10.244.0.0/16", LogLevel: "info",
		RestartBackoff: metaDuration{10 * time.Second}, CertsDir: "/etc/troupe/certs.d",
	}
	var file string
	find := pflag.NewFlagSet("trouped", pflag.ContinueOnError)
	find.ParseErrorsAllowlist.UnknownFlags = true
	find.Usage = func() {}
	find.StringVar(&file, "config", "", "")
	if err := find.Parse(args); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return nil, err
	}
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
		if err := yaml.UnmarshalStrict(b, o); err != nil {
			return nil, fmt.Errorf("--config %s: %w", file, err)
		}
	}
	flags := pflag.NewFlagSet("trouped", pflag.ExitOnError)
	flags.StringVar(&file, "config", file, "A file with these settings: name, dataDir, runDir, socket, containerd, containerdNamespace, cgroupParent, podCIDR, logLevel, restartBackoff, certsDir")
	flags.StringVar(&o.Name, "name", o.Name, "This machine's name in the cluster")
	flags.StringVar(&o.DataDir, "data-dir", o.DataDir, "Where the agent keeps what survives a reboot")
	flags.StringVar(&o.RunDir, "run-dir", o.RunDir, "Where the agent keeps what does not")
	flags.StringVar(&o.Socket, "socket", o.Socket, "Where the agent listens (default RUN-DIR/troupe.sock)")
	flags.StringVar(&o.Containerd, "containerd", o.Containerd, "The socket of the containerd to use (default the machine's own if it answers, else one that the agent runs itself)")
	flags.StringVar(&o.ContainerdNamespace, "containerd-namespace", o.ContainerdNamespace, "The containerd namespace, for this agent alone (default troupe, with another data directory named after it)")
	flags.StringVar(&o.CgroupParent, "cgroup-parent", o.CgroupParent, "The cgroup that the pods' cgroups stand in, for this agent alone (default like the containerd namespace)")
	flags.StringVar(&o.PodCIDR, "pod-cidr", o.PodCIDR, "The addresses of all pods of the cluster; each machine gets a /24 of it")
	flags.StringVar(&o.LogLevel, "log-level", o.LogLevel, "debug, info, warn or error")
	flags.DurationVar(&o.RestartBackoff.Duration, "restart-backoff", o.RestartBackoff.Duration, "How long a container that ended again waits before its second restart; doubles up to 5m")
	flags.BoolVar(&o.Restart, "restart", false, "Have the keeper start the agent again when it ends without having been told to")
	flags.StringVar(&o.CertsDir, "certs-dir", o.CertsDir, "How to reach image registries: HOST/hosts.toml with certificates, mirrors and plain HTTP, as containerd reads it")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: trouped takes flags only", flags.Arg(0))
	}
	return o, o.check()
}

func (o *options) check() (err error) {
	if errs := validation.IsDNS1123Subdomain(o.Name); len(errs) > 0 {
		return fmt.Errorf("--name %q: %s", o.Name, strings.Join(errs, "; "))
	}
	if err := o.level.UnmarshalText([]byte(o.LogLevel)); err != nil {
		return fmt.Errorf("--log-level %q: give debug, info, warn or error", o.LogLevel)
	}
	o.pods, err = netip.ParsePrefix(o.PodCIDR)
	switch {
	case err != nil:
		return fmt.Errorf("--pod-cidr: %w", err)
	case !o.pods.Addr().Is4():
		return fmt.Errorf("--pod-cidr %s: only IPv4 is supported", o.pods)
	case o.pods.Bits() > 24:
		return fmt.Errorf("--pod-cidr %s: a machine gets a /24 of it, so it must be a /24 or larger", o.pods)
	}
	o.pods = o.pods.Masked()
	dirs, err := o.dirs().Resolve()
	if err != nil {
		return err
	}
	o.DataDir, o.RunDir = dirs.Data, dirs.Run
	// The agent removes what it finds in either and nobody wants.
	o.ContainerdNamespace, o.CgroupParent = cmp.Or(o.ContainerdNamespace, dirs.Name()), cmp.Or(o.CgroupParent, dirs.Name())
	if slices.Contains([]string{"default", "k8s.io", "moby"}, o.ContainerdNamespace) {
		return fmt.Errorf("--containerd-namespace %s is of other programs: the agent removes what it finds there, so give it one of its own", o.ContainerdNamespace)
	}
	if top, _, _ := strings.Cut(strings.Trim(filepath.Clean("/"+o.CgroupParent), "/"), "/"); top == "" || slices.Contains([]string{"init.scope", "kubepods", "docker"}, top) ||
		strings.HasSuffix(o.CgroupParent, ".slice") {
		return fmt.Errorf("--cgroup-parent %s is of other programs: the agent ends what it finds there, so give it one of its own", o.CgroupParent)
	}
	if o.Socket == "" {
		o.Socket = o.dirs().Socket()
	}
	const longest = 107 // of a unix socket's path
	if len(o.Socket) > longest {
		return fmt.Errorf("--socket %s: longer than %d characters, which the kernel does not take", o.Socket, longest)
	}
	return nil
}
