// Package sandbox makes what the containers of a pod share, without a process
// that holds it: network, IPC and UTS namespaces pinned by bind mounts, an
// address with a routed veth pair, a shared /dev/shm, the control group, and
// the files /etc/hosts, /etc/resolv.conf and /etc/hostname.
//
// Everything is found again after the agent died at any point:
//
//	DATA/pods/<id>/sandbox.json    what was asked for, with the address
//	DATA/pods/<id>/{etc-hosts,resolv.conf,hostname}
//	DATA/addresses/<address>       a symbolic link to the ID that has it
//	RUN/netns/<id>/{net,ipc,uts}   pinned namespaces
//	RUN/netns/<id>/shm             the pod's /dev/shm
package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"github.com/moby/locker"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/cgroup"
	"github.com/troupe-sh/troupe/runtime/container"
)

// Config says where things stand.
type Config struct {
	RunDir, DataDir string
	CgroupParent    string // /troupe if empty
	Log             *slog.Logger
}

// Store is all sandboxes of a machine. Its methods may be called at the same time.
type Store struct {
	c         Config
	host      *netlink.Handle // in the machine's network namespace
	hostNS    int             // the same, as a file
	busy      *locker.Locker  // by ID
	addresses *addresses
	strays    sync.Map // names that were warned of

	mu  sync.Mutex
	net network
}

// Paths is where a container of a sandbox finds what it joins. Empty: the machine's own.
type Paths struct {
	Net, IPC, UTS               string
	Shm                         string
	Hosts, ResolvConf, Hostname string
	Cgroup                      string // the pod's, as a control group's name
}

// record is DATA/pods/<id>/sandbox.json.
type record struct {
	Spec container.SandboxSpec
	Addr netip.Addr
}

// An ID becomes the name of directories, links and control groups, and what
// containerd takes.
var validName = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)

func validID(id string) bool { return len(id) <= 128 && validName.MatchString(id) }

// Open reads what there is. It must be called in the machine's network namespace.
func Open(c Config) (*Store, error) {
	if c.CgroupParent == "" {
		c.CgroupParent = "/troupe"
	}
	s := &Store{c: c, busy: locker.New()}
	for _, dir := range []string{s.pinDir(""), s.podDir("")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("open sandboxes: %w", err)
		}
	}
	var err error
	if s.addresses, err = openAddresses(filepath.Join(c.DataDir, "addresses")); err != nil {
		return nil, fmt.Errorf("open sandboxes: %w", err)
	}
	if s.host, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open sandboxes: netlink: %w", err)
	}
	if s.hostNS, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		s.host.Close()
		return nil, fmt.Errorf("open sandboxes: own network namespace: %w", err)
	}
	return s, nil
}

// Close lets go of the machine's network namespace. Sandboxes stay.
func (s *Store) Close() {
	s.host.Close()
	_ = unix.Close(s.hostNS)
}

func (s *Store) podDir(id string) string { return filepath.Join(s.c.DataDir, "pods", id) }
func (s *Store) pinDir(id string) string { return filepath.Join(s.c.RunDir, "netns", id) }

// Paths of a sandbox made by Run.
func (s *Store) Paths(spec container.SandboxSpec) Paths {
	p := Paths{
		Hosts:      filepath.Join(s.podDir(spec.ID), "etc-hosts"),
		ResolvConf: filepath.Join(s.podDir(spec.ID), "resolv.conf"),
		Hostname:   filepath.Join(s.podDir(spec.ID), "hostname"),
		Shm:        "/dev/shm",
		Cgroup:     cgroup.Path(s.c.CgroupParent, qos(spec), spec.ID),
	}
	if !spec.HostNetwork {
		p.Net = filepath.Join(s.pinDir(spec.ID), "net")
		p.UTS = filepath.Join(s.pinDir(spec.ID), "uts")
	}
	if !spec.HostIPC {
		p.IPC = filepath.Join(s.pinDir(spec.ID), "ipc")
		p.Shm = filepath.Join(s.pinDir(spec.ID), "shm")
	}
	return p
}

func qos(spec container.SandboxSpec) string {
	if spec.QOS == "" {
		return "BestEffort"
	}
	return spec.QOS
}

// Run makes the sandbox, or mends what is missing of it. alive names a process
// that runs in it, or 0: a pin that was lost is made again from it, so that
// its containers need not restart.
func (s *Store) Run(_ context.Context, spec container.SandboxSpec, alive func() uint32) (container.Sandbox, error) {
	if !validID(spec.ID) {
		return container.Sandbox{}, fmt.Errorf("sandbox ID %q: %w", spec.ID, container.ErrInvalid)
	}
	s.busy.Lock(spec.ID)
	defer func() { _ = s.busy.Unlock(spec.ID) }()
	sb, err := s.run(spec, alive)
	if err != nil {
		return container.Sandbox{}, fmt.Errorf("sandbox %s: %w", spec.ID, err)
	}
	return sb, nil
}

func (s *Store) run(spec container.SandboxSpec, alive func() uint32) (container.Sandbox, error) {
	old, oldRaw, err := s.read(spec.ID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.c.Log.Warn("sandbox record unreadable, made again", "sandbox", spec.ID, "error", err)
	}
	rec := record{Spec: spec, Addr: old.Addr}
	if spec.HostNetwork {
		rec.Addr = netip.Addr{}
	} else if rec.Addr, err = s.address(rec, alive); err != nil {
		return container.Sandbox{}, err
	}
	raw, err := json.Marshal(rec)
	if err != nil {
		return container.Sandbox{}, err
	}
	// The table may have been flushed meanwhile. Of a pod without ports there is
	// nothing in it.
	ports := func() error { return nil }
	if len(spec.HostPorts)+len(old.Spec.HostPorts) > 0 {
		ports = func() error { return s.hostPorts(rec) }
	}
	whole := container.Sandbox{ID: spec.ID, Pod: spec.Pod, Addr: rec.Addr, Ready: true}
	if bytes.Equal(raw, oldRaw) && s.ready(rec) {
		return whole, ports()
	}

	if err := os.MkdirAll(s.podDir(spec.ID), 0o755); err != nil {
		return container.Sandbox{}, err
	}
	if err := replaceFile(s.recordPath(spec.ID), raw); err != nil {
		return container.Sandbox{}, err
	}
	group := make(chan error, 1)
	go func() { group <- cgroup.Make(s.Paths(spec).Cgroup, spec.Resources) }()
	err = s.writeFiles(rec)
	if err == nil {
		err = s.pin(rec, alive)
	}
	if err := errors.Join(err, <-group); err != nil {
		return container.Sandbox{}, err
	}
	return whole, ports()
}

// address is the sandbox's. One that the machine's present pod network does not
// have leads nowhere: it is given back, unless something still runs with it.
func (s *Store) address(r record, alive func() uint32) (netip.Addr, error) {
	cidr := s.network().PodCIDR
	addr, err := s.addresses.of(r.Spec.ID, cidr)
	if err != nil || !cidr.IsValid() || usable(cidr, addr) || alive() != 0 || cgroup.Busy(s.Paths(r.Spec).Cgroup) {
		return addr, err
	}
	s.c.Log.Info("a sandbox's address is outside the pod network, it gets another", "sandbox", r.Spec.ID, "address", addr, "network", cidr)
	for _, undo := range []func(id string) error{s.unwire, s.unpin, s.addresses.release} {
		if err := undo(r.Spec.ID); err != nil {
			return netip.Addr{}, err
		}
	}
	return s.addresses.of(r.Spec.ID, cidr)
}

func (s *Store) recordPath(id string) string { return filepath.Join(s.podDir(id), "sandbox.json") }

func (s *Store) read(id string) (record, []byte, error) {
	var r record
	raw, err := os.ReadFile(s.recordPath(id))
	if err != nil {
		return r, nil, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return record{}, nil, err
	}
	return r, raw, nil
}

// replaceFile writes a file whole or not at all, as far as a dying process
// goes. A machine that loses power may lose it: then it is made again.
func replaceFile(path string, content []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Spec is what a sandbox was made of, and whether it is whole. ErrNotFound:
// there is none.
func (s *Store) Spec(id string) (container.SandboxSpec, bool, error) {
	rec, _, err := s.read(id)
	if errors.Is(err, fs.ErrNotExist) {
		return container.SandboxSpec{}, false, fmt.Errorf("sandbox %s: %w", id, container.ErrNotFound)
	}
	if err != nil {
		return container.SandboxSpec{}, false, fmt.Errorf("sandbox %s: %w", id, err)
	}
	return rec.Spec, s.ready(rec), nil
}

// ready tells whether everything of the sandbox stands that containers join.
func (s *Store) ready(r record) bool {
	p := s.Paths(r.Spec)
	for _, pin := range []string{p.Net, p.IPC, p.UTS} {
		if pin != "" && !pinned(pin) {
			return false
		}
	}
	if !r.Spec.HostIPC && !mountedShm(p.Shm) {
		return false
	}
	for _, file := range []string{p.Hosts, p.ResolvConf, p.Hostname} {
		if _, err := os.Stat(file); err != nil {
			return false
		}
	}
	return cgroup.Exists(p.Cgroup) && (r.Spec.HostNetwork || s.wired(r))
}

// List tells of everything found, also of what was only begun or half removed.
func (s *Store) List() ([]container.Sandbox, error) {
	found := map[string]bool{}
	for _, dir := range []string{s.pinDir(""), s.podDir("")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("list sandboxes: %w", err)
		}
		for _, e := range entries {
			found[e.Name()] = true
		}
	}
	groups, err := cgroup.Pods(s.c.CgroupParent)
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	for id := range groups {
		found[id] = true
	}
	for _, id := range s.addresses.owners() {
		found[id] = true
	}
	var all []container.Sandbox
	for _, id := range slices.Sorted(maps.Keys(found)) {
		if !validID(id) {
			if _, told := s.strays.LoadOrStore(id, true); !told {
				s.c.Log.Warn("something stands among the sandboxes that is none: remove it by hand", "name", id, "directories", []string{s.pinDir(""), s.podDir("")})
			}
			continue
		}
		rec, _, err := s.read(id)
		switch {
		case err == nil:
			all = append(all, container.Sandbox{ID: id, Pod: rec.Spec.Pod, Addr: rec.Addr, Ready: s.ready(rec)})
		case groups[id] == "" && !s.addresses.has(id) && !exists(s.pinDir(id)):
			// a directory with volumes alone is not ours
		default:
			all = append(all, container.Sandbox{ID: id, Pod: container.Pod{UID: id}})
		}
	}
	return all, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Remove removes everything of a sandbox; what is not there is no error. Its
// containers are gone before.
func (s *Store) Remove(_ context.Context, id string) error {
	if !validID(id) {
		return fmt.Errorf("remove sandbox %q: %w", id, container.ErrInvalid)
	}
	s.busy.Lock(id)
	defer func() { _ = s.busy.Unlock(id) }()
	if err := s.remove(id); err != nil {
		return fmt.Errorf("remove sandbox %s: %w", id, err)
	}
	return nil
}

func (s *Store) remove(id string) error {
	// The record goes last: until then a Remove that was cut short is repeated.
	rec, _, err := s.read(id)
	if err != nil || len(rec.Spec.HostPorts) > 0 { // unknown: look
		if err := s.hostPorts(record{Spec: container.SandboxSpec{ID: id}}); err != nil {
			return err
		}
	}
	if err := s.unwire(id); err != nil {
		return err
	}
	if err := s.unpin(id); err != nil {
		return err
	}
	groups := map[string]string{id: cgroup.Path(s.c.CgroupParent, qos(rec.Spec), id)}
	if err != nil {
		if groups, err = cgroup.Pods(s.c.CgroupParent); err != nil {
			return err
		}
	}
	if group, ok := groups[id]; ok {
		if err := cgroup.Remove(group); err != nil {
			return err
		}
	}
	if err := s.addresses.release(id); err != nil {
		return err
	}
	for _, name := range []string{"etc-hosts", "resolv.conf", "hostname", "sandbox.json.new", "sandbox.json"} {
		if err := os.Remove(filepath.Join(s.podDir(id), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Volumes may still stand there; whoever made them removes the directory then.
	if err := os.Remove(s.podDir(id)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}
