package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dialTimeout is how long whoever is asked has to answer.
const dialTimeout = 2 * time.Second

// Machine is the Probe of this machine; the agent is asked by the one who has
// its clients.
type Machine struct {
	Ask func(context.Context, Subject) (Agent, error)
}

var _ Probe = Machine{}

// ReadFile implements [Probe].
func (Machine) ReadFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(b), plain(err)
}

// plain is an error in the words of a probe.
func plain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, os.ErrPermission) && os.Geteuid() != 0:
		return ErrNotRoot
	}
	return err
}

// Program implements [Probe]: beside this command, then on the PATH.
func (Machine) Program(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	return path, plain(err)
}

// Output implements [Probe].
func (Machine) Output(ctx context.Context, program string, args ...string) (string, error) {
	b, err := exec.CommandContext(ctx, program, args...).Output()
	return string(b), err
}

// Room implements [Probe].
func (Machine) Room(dir string) (Room, error) {
	var fs unix.Statfs_t
	for {
		err := unix.Statfs(dir, &fs)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) || dir == filepath.Dir(dir) {
			return Room{}, plain(fmt.Errorf("file system of %s: %w", dir, err))
		}
		dir = filepath.Dir(dir) // it is made there
	}
	size := uint64(fs.Bsize)
	return Room{Free: fs.Bavail * size, Total: fs.Blocks * size, FreeFiles: fs.Ffree, TotalFiles: fs.Files}, nil
}

// OpenFiles implements [Probe]: the Go runtime raises its own limit to the most.
func (Machine) OpenFiles() (uint64, error) {
	var l unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return l.Max, err
}

// Root implements [Probe].
func (Machine) Root() bool { return os.Geteuid() == 0 }

// Namespaces implements [Probe].
func (Machine) Namespaces() error {
	return apart(unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS, func() error { return nil })
}

// Links implements [Probe].
func (Machine) Links() error {
	return apart(unix.CLONE_NEWNET, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "a"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "b"}); err != nil {
			return fmt.Errorf("make a pair of links: %w", err)
		}
		return nil
	})
}

// Nftables implements [Probe].
func (Machine) Nftables() error {
	return apart(unix.CLONE_NEWNET, func() error {
		c, err := nftables.New()
		if err != nil {
			return fmt.Errorf("speak to nftables: %w", err)
		}
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "doctor"})
		chain := c.AddChain(&nftables.Chain{
			Name: "c", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, &expr.Masq{}}})
		if err := c.Flush(); err != nil {
			return fmt.Errorf("make NAT rules: %w", err)
		}
		return nil
	})
}

// apart runs f in namespaces of its own, which go with its thread.
func apart(flags int, f func() error) error {
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespaces
		if err := unix.Unshare(flags); err != nil {
			failed <- fmt.Errorf("make namespaces: %w", err)
			return
		}
		failed <- f()
	}()
	return <-failed
}

// Addrs implements [Probe].
func (Machine) Addrs() (all []netip.Prefix, err error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && !p.Addr().IsLinkLocalUnicast() {
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// Now implements [Probe].
func (Machine) Now() (time.Time, bool, error) {
	state, err := unix.Adjtimex(&unix.Timex{})
	return time.Now(), state != unix.TIME_ERROR, err
}

// Listens implements [Probe].
func (Machine) Listens(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if errors.Is(err, syscall.ECONNREFUSED) {
		if info, statErr := os.Stat(socket); statErr == nil && info.Mode().Type() == os.ModeSocket {
			return ErrNotFound // left by one that was killed
		}
	}
	if err != nil {
		return plain(err)
	}
	return c.Close()
}

// Containerd implements [Probe].
func (m Machine) Containerd(ctx context.Context, socket string) (string, error) {
	if err := m.Listens(ctx, socket); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := containerd.New(socket, containerd.WithTimeout(dialTimeout))
	if err != nil {
		return "", err
	}
	defer c.Close()
	v, err := c.Version(ctx)
	return v.Version, err
}

// Agent implements [Probe].
func (m Machine) Agent(ctx context.Context, s Subject) (Agent, error) {
	pid, err := s.Dirs.PID()
	if err != nil || pid == 0 {
		return Agent{PID: pid}, plain(err)
	}
	a, err := m.Ask(ctx, s)
	a.PID = pid
	return a, err
}
