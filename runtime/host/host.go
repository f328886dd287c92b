// Package host tells what the machine is, from the kernel's own files.
package host

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/troupe-sh/troupe/runtime/cgroup"
)

// Facts are a machine's.
type Facts struct {
	Addr          netip.Addr // by which other machines reach this one; invalid if there is none
	OS            string     // linux
	Arch          string     // amd64
	OSImage       string     // the distribution's name for itself
	Kernel        string
	MachineID     string
	SystemUUID    string
	BootID        string
	CPUs          int64
	Memory        int64 // bytes
	MemoryFree    int64 // bytes that could be given to processes
	Storage       int64 // bytes of the file system that holds pods
	StorageFree   int64
	PIDs, PIDsMax int64
}

// Usage is what a machine has used. CPU is cumulative.
type Usage struct {
	CPU    time.Duration
	Memory int64 // working set, bytes
	At     time.Time
}

// What is kept free of pods, as Kubernetes' agent does.
const (
	MemoryReserved  = 100 << 20 // bytes
	StorageReserved = 10        // per cent
)

// Capacity is what the machine has, and what of it pods can have.
func (f Facts) Capacity() (all, allocatable corev1.ResourceList) {
	all = corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(f.CPUs, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(f.Memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(f.Storage, resource.BinarySI),
	}
	allocatable = all.DeepCopy()
	allocatable[corev1.ResourceMemory] = *resource.NewQuantity(max(f.Memory-MemoryReserved, 0), resource.BinarySI)
	allocatable[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(f.Storage/100*(100-StorageReserved), resource.BinarySI)
	return all, allocatable
}

// Host reads them.
type Host struct {
	dataDir string
	addr    netip.Addr
	seen    atomic.Pointer[netip.Addr] // by the last Facts
}

// New returns a Host whose pods are kept below dataDir. addr, if valid, is the
// operator's word on the address.
func New(dataDir string, addr netip.Addr) *Host { return &Host{dataDir: dataDir, addr: addr} }

// Facts reads the machine as it is now.
func (h *Host) Facts(context.Context) (Facts, error) {
	f := Facts{
		OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: int64(runtime.NumCPU()), Addr: h.addr,
		OSImage:    osImage(),
		MachineID:  line("/etc/machine-id"),
		SystemUUID: cmp.Or(line("/sys/class/dmi/id/product_uuid"), line("/etc/machine-id")),
		BootID:     line("/proc/sys/kernel/random/boot_id"),
	}
	var u unix.Utsname
	var fs unix.Statfs_t
	if err := errors.Join(unix.Uname(&u), unix.Statfs(h.dataDir, &fs)); err != nil {
		return Facts{}, fmt.Errorf("read the kernel's version and the file system of %s: %w", h.dataDir, err)
	}
	f.Kernel = unix.ByteSliceToString(u.Release[:])
	f.Storage, f.StorageFree = int64(fs.Blocks)*fs.Bsize, int64(fs.Bavail)*fs.Bsize
	var err error
	if f.Memory, f.MemoryFree, err = memory(); err != nil {
		return Facts{}, err
	}
	if f.PIDs, f.PIDsMax, err = processes(); err != nil {
		return Facts{}, err
	}
	if !f.Addr.IsValid() {
		if f.Addr, err = address(); err != nil {
			return Facts{}, err
		}
	}
	h.seen.Store(&f.Addr)
	return f, nil
}

// Addrs are the machine's as Facts last saw it: one, or none. It may be called
// at the same time as Facts.
func (h *Host) Addrs() []netip.Addr {
	if a := h.seen.Load(); a != nil && a.IsValid() {
		return []netip.Addr{*a}
	}
	return nil
}

// Usage is what the whole machine has used, whoever used it: CPU since it
// booted, memory now.
func (h *Host) Usage(context.Context) (Usage, error) {
	use, err := cgroup.Usage("/")
	if err != nil {
		return Usage{}, fmt.Errorf("read what this machine uses: %w", err)
	}
	return Usage{CPU: use.CPU, Memory: use.Memory, At: time.Now()}, nil
}

// line is the content of a file that may be missing.
func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func osImage() string {
	for l := range strings.Lines(line("/etc/os-release")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "Linux"
}

func memory() (total, free int64, err error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64) // what is no number is none of the two
		switch fields[0] {
		case "MemTotal:":
			total = kib << 10
		case "MemAvailable:":
			free = kib << 10
		}
	}
	if total == 0 {
		return 0, 0, errors.New("/proc/meminfo: no MemTotal")
	}
	return total, free, nil
}

// processes counts threads too: the kernel's limit is on both.
func processes() (now, most int64, err error) {
	if most, err = strconv.ParseInt(line("/proc/sys/kernel/pid_max"), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("/proc/sys/kernel/pid_max: %w", err)
	}
	fields := strings.Fields(line("/proc/loadavg"))
	if len(fields) < 4 {
		return 0, 0, fmt.Errorf("/proc/loadavg: %q", fields)
	}
	_, all, _ := strings.Cut(fields[3], "/")
	if now, err = strconv.ParseInt(all, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("/proc/loadavg: %w", err)
	}
	return now, most, nil
}

// address is the IPv4 address on the link of the default route, or else on the
// first link that has one.
func address() (netip.Addr, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list routes: %w", err)
	}
	first := 0
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			if r.LinkIndex > 0 {
				first = r.LinkIndex
				break
			}
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses: %w", err)
	}
	slices.SortStableFunc(addrs, func(a, b netlink.Addr) int {
		return cmp.Compare(rank(a, first), rank(b, first))
	})
	for _, a := range addrs {
		addr, ok := netip.AddrFromSlice(a.IP.To4())
		if ok && addr.IsGlobalUnicast() && rank(a, first) < loopback {
			return addr, nil
		}
	}
	return netip.Addr{}, nil
}

const loopback = 1 << 30

// rank orders links: that of the default route, the others by number, none of loopback.
func rank(a netlink.Addr, first int) int {
	switch a.LinkIndex {
	case first:
		return 0
	case 1: // lo is always the first of its network namespace
		return loopback
	}
	return a.LinkIndex
}
