package ctrd

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/sys/user"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/troupe-sh/troupe/runtime/cgroup"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/sandbox"
)

// specInput is everything that a container's OCI specification is made of.
type specInput struct {
	container.Spec
	box      container.SandboxSpec
	paths    sandbox.Paths
	image    ocispec.ImageConfig
	user     specs.User
	message  string // file on the machine for TerminationMessagePath
	pidNS    string // of the pod's process 1
	group    string
	oomFloor int
	profiles string // directory of seccomp profiles
}

// defaultCaps are what Docker and Kubernetes leave to a container.
var defaultCaps = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// cgroup is the container's control group, below its pod's.
func (in *specInput) cgroup() string { return path.Join(in.paths.Cgroup, in.ID) }

// oci is the specification.
func (in *specInput) oci() (*specs.Spec, error) {
	args := in.args()
	if len(args) == 0 {
		return nil, fmt.Errorf("neither the container nor the image says which command to run: %w", container.ErrInvalid)
	}
	caps, err := capabilities(in.Security)
	if err != nil {
		return nil, err
	}
	score := max(in.Resources.OOMScoreAdj, in.oomFloor)
	s := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs", Readonly: in.Security.ReadOnlyRoot},
		Process: &specs.Process{
			Args:            args,
			Cwd:             cmp.Or(in.WorkingDir, in.image.WorkingDir, "/"),
			Env:             in.env(),
			Terminal:        in.TTY,
			User:            in.user,
			NoNewPrivileges: in.Security.NoNewPrivs,
			OOMScoreAdj:     &score,
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Annotations: map[string]string{groupAnnotation: in.group},
		Linux: &specs.Linux{
			CgroupsPath: in.cgroup(),
			Namespaces:  in.namespaces(),
			Resources:   cgroup.OCI(in.Resources),
		},
	}
	if err := in.mounts(s); err != nil {
		return nil, err
	}
	if err := in.devices(s); err != nil {
		return nil, err
	}
	if cgroup.Unified() {
		// One process killed for memory takes the container with it, as kubelet has it.
		s.Linux.Resources.Unified = map[string]string{"memory.oom.group": "1"}
	}
	if in.Security.MaskedPaths && !in.Security.Privileged {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	return s, in.seccomp(s)
}

// args are the command: the container's own replaces the image's entry point
// and, with it, the image's arguments.
func (in *specInput) args() []string {
	switch {
	case len(in.Command) > 0:
		return slices.Concat(in.Command, in.Args)
	case len(in.Args) > 0:
		return slices.Concat(in.image.Entrypoint, in.Args)
	}
	return slices.Concat(in.image.Entrypoint, in.image.Cmd)
}

// env is Troupe's, the image's and the container's; a later value replaces an earlier one.
func (in *specInput) env() []string {
	all := []string{defaultPath}
	if in.TTY {
		all = append(all, "TERM=xterm")
	}
	if in.box.Hostname != "" {
		all = append(all, "HOSTNAME="+in.box.Hostname)
	}
	var out []string
	at := map[string]int{}
	for _, e := range slices.Concat(all, in.image.Env, in.Env) {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}

// namespaces are the container's own, the pod's by path, or the machine's by leaving them out.
func (in *specInput) namespaces() []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if cgroup.Unified() && !in.Security.Privileged {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	for kind, path := range map[specs.LinuxNamespaceType]string{
		specs.NetworkNamespace: in.paths.Net, specs.IPCNamespace: in.paths.IPC, specs.UTSNamespace: in.paths.UTS,
	} {
		if path != "" {
			ns = append(ns, specs.LinuxNamespace{Type: kind, Path: path})
		}
	}
	if !in.box.HostPID {
		ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: in.pidNS})
	}
	slices.SortFunc(ns, func(a, b specs.LinuxNamespace) int { return cmp.Compare(a.Type, b.Type) })
	return ns
}

// mounts sets the usual ones, the pod's files, and what the container asked for.
func (in *specInput) mounts(s *specs.Spec) error {
	sys := "ro"
	if in.Security.Privileged {
		sys = "rw"
	}
	s.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sys}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", sys}},
	}
	own := []container.Mount{
		{HostPath: in.paths.Shm, ContainerPath: "/dev/shm"},
		{HostPath: in.paths.Hosts, ContainerPath: "/etc/hosts", ReadOnly: in.Security.ReadOnlyRoot},
		{HostPath: in.paths.ResolvConf, ContainerPath: "/etc/resolv.conf", ReadOnly: in.Security.ReadOnlyRoot},
		{HostPath: in.paths.Hostname, ContainerPath: "/etc/hostname", ReadOnly: in.Security.ReadOnlyRoot},
	}
	if in.message != "" {
		own = append(own, container.Mount{HostPath: in.message, ContainerPath: in.TerminationMessagePath})
	}
	// What the container asks for replaces ours at the same place.
	asked := map[string]bool{}
	for _, m := range in.Mounts {
		asked[path.Clean(m.ContainerPath)] = true
	}
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return asked[m.Destination] })
	own = slices.DeleteFunc(own, func(m container.Mount) bool { return asked[path.Clean(m.ContainerPath)] })
	binds := slices.Concat(own, in.Mounts)
	// A mount inside another comes after it.
	slices.SortStableFunc(binds, func(a, b container.Mount) int {
		return cmp.Compare(strings.Count(path.Clean(a.ContainerPath), "/"), strings.Count(path.Clean(b.ContainerPath), "/"))
	})
	for _, m := range binds {
		if !path.IsAbs(m.ContainerPath) || !filepath.IsAbs(m.HostPath) {
			return fmt.Errorf("mount of %q at %q: %w: both must be absolute", m.HostPath, m.ContainerPath, container.ErrInvalid)
		}
		options := []string{"rbind"}
		switch m.Propagation {
		case "":
			options = append(options, "rprivate")
		case "rslave", "rshared":
			options = append(options, m.Propagation)
			if s.Linux.RootfsPropagation != "rshared" {
				s.Linux.RootfsPropagation = m.Propagation
			}
		default:
			return fmt.Errorf("mount at %q: propagation %q: %w", m.ContainerPath, m.Propagation, container.ErrInvalid)
		}
		if m.ReadOnly {
			options = append(options, "ro")
		} else {
			options = append(options, "rw")
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: path.Clean(m.ContainerPath), Type: "bind", Source: m.HostPath, Options: options})
	}
	return nil
}

// devices allows those asked for; all with privileges. The runtime adds /dev/null and its like.
func (in *specInput) devices(s *specs.Spec) error {
	if in.Security.Privileged {
		all, err := oci.HostDevices()
		if err != nil {
			return fmt.Errorf("devices of the machine: %w", err)
		}
		s.Linux.Devices = all
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return nil
	}
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, name := range in.Devices {
		d, err := oci.DeviceFromPath(name)
		if err != nil {
			return fmt.Errorf("device %s: %w: %w", name, err, container.ErrInvalid)
		}
		s.Linux.Devices = append(s.Linux.Devices, *d)
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: "rwm",
		})
	}
	return nil
}

// seccomp sets the profile. The capabilities are set before: it depends on them.
func (in *specInput) seccomp(s *specs.Spec) error {
	profile := cmp.Or(in.Security.Seccomp, "RuntimeDefault")
	file, local := strings.CutPrefix(profile, "localhost/")
	switch {
	case in.Security.Privileged, profile == "Unconfined":
	case profile == "RuntimeDefault":
		s.Linux.Seccomp = seccomp.DefaultProfile(s)
		// Kernels are built without x32 programs; to filter their calls too
		// takes half of the time that it takes to build the filter: 9 ms a start.
		s.Linux.Seccomp.Architectures = slices.DeleteFunc(s.Linux.Seccomp.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
	case local:
		if !filepath.IsLocal(file) {
			return fmt.Errorf("seccomp profile %q: %w: no path inside %s", file, container.ErrInvalid, in.profiles)
		}
		file = filepath.Join(in.profiles, file)
		raw, err := os.ReadFile(file)
		if err == nil {
			s.Linux.Seccomp = &specs.LinuxSeccomp{}
			err = json.Unmarshal(raw, s.Linux.Seccomp)
		}
		if err != nil {
			return fmt.Errorf("seccomp profile %s: %w: %w", file, err, container.ErrInvalid)
		}
	default:
		return fmt.Errorf("seccomp profile %q: %w: RuntimeDefault, Unconfined or localhost/<file>", profile, container.ErrInvalid)
	}
	return nil
}

// capabilities are the default ones, more and fewer.
func capabilities(sec container.Security) ([]string, error) {
	mine, err := cap.Current()
	if err != nil {
		return nil, fmt.Errorf("own capabilities: %w", err)
	}
	if sec.Privileged {
		return mine, nil
	}
	known := cap.Known()
	set := map[string]bool{}
	for _, c := range defaultCaps {
		set[c] = true
	}
	// ALL first, so that one can be taken from it, or left.
	for _, list := range []struct {
		names []string
		on    bool
	}{{sec.AddCaps, true}, {sec.DropCaps, false}} {
		for _, name := range list.names {
			if strings.EqualFold(name, "ALL") {
				for _, c := range known {
					set[c] = list.on
				}
			}
		}
	}
	for _, list := range []struct {
		names []string
		on    bool
	}{{sec.AddCaps, true}, {sec.DropCaps, false}} {
		for _, name := range list.names {
			if strings.EqualFold(name, "ALL") {
				continue
			}
			c := "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_")
			if !slices.Contains(known, c) {
				return nil, fmt.Errorf("capability %q: %w: the kernel has none of that name", name, container.ErrInvalid)
			}
			set[c] = list.on
		}
	}
	// What this machine's agent does not have it cannot give.
	var out []string
	for _, c := range mine {
		if set[c] {
			out = append(out, c)
		}
	}
	slices.Sort(out)
	return out, nil
}

// oomFloor is the lowest oom_score_adj that processes of this machine may
// have: without CAP_SYS_RESOURCE, our own.
func oomFloor() (int, error) {
	mine, err := cap.Current()
	if err != nil {
		return 0, fmt.Errorf("own capabilities: %w", err)
	}
	if slices.Contains(mine, "CAP_SYS_RESOURCE") {
		return -1000, nil
	}
	raw, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(raw)))
}

// resolveUser finds who runs, in the image's own /etc/passwd and /etc/group.
func resolveUser(sec container.Security, imageUser string, passwd, group []byte) (specs.User, error) {
	name := cmp.Or(sec.User, imageUser)
	got, err := user.GetExecUser(name, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return specs.User{}, fmt.Errorf("user %q: %w: %w", name, err, container.ErrInvalid)
	}
	if sec.RunAsNonRoot && got.Uid == 0 {
		return specs.User{}, fmt.Errorf("runAsNonRoot is set and the container would run as user 0: %w", container.ErrInvalid)
	}
	u := specs.User{UID: uint32(got.Uid), GID: uint32(got.Gid)}
	if sec.RunAsGroup != nil {
		u.GID = uint32(*sec.RunAsGroup)
	}
	gids := []uint32{u.GID}
	for _, g := range got.Sgids {
		gids = append(gids, uint32(g))
	}
	for _, g := range sec.Groups {
		gids = append(gids, uint32(g))
	}
	slices.Sort(gids)
	u.AdditionalGids = slices.Compact(gids)
	return u, nil
}
