package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/troupe-sh/troupe/runtime/container"
)

// rest is how long an address that was given back is not given out again:
// connections and caches of others may still know its last owner.
const rest = time.Minute

// released is what the link of a resting address points to. No ID looks so.
const released = "-"

// addresses gives them out. Each is a symbolic link named after it: making one
// is atomic, fails when somebody has it, and carries the owner.
type addresses struct {
	dir string
	now func() time.Time

	mu    sync.Mutex
	owner map[netip.Addr]string
	byID  map[string]netip.Addr
	freed map[netip.Addr]time.Time
	last  netip.Addr
}

func openAddresses(dir string) (*addresses, error) {
	a := &addresses{
		dir: dir, now: time.Now,
		owner: map[netip.Addr]string{}, byID: map[string]netip.Addr{}, freed: map[netip.Addr]time.Time{},
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		addr, err := netip.ParseAddr(e.Name())
		if err != nil {
			// A link that was about to replace another.
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
			continue
		}
		id, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if id == released {
			a.freed[addr] = a.now() // when exactly is not known across a restart
			continue
		}
		a.owner[addr], a.byID[id] = id, addr
	}
	return a, nil
}

// of is the address that id has, or gets now from the network.
func (a *addresses) of(id string, cidr netip.Prefix) (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if addr, ok := a.byID[id]; ok {
		return addr, nil
	}
	if !cidr.IsValid() {
		return netip.Addr{}, fmt.Errorf("no pod network: Configure comes first: %w", container.ErrNotReady)
	}
	first := gateway(cidr).Next()
	addr := a.last.Next()
	if !usable(cidr, addr) || addr.Less(first) {
		addr = first
	}
	for start := addr; ; {
		if !usable(cidr, addr) {
			addr = first
		} else if free, err := a.take(addr, id); err != nil {
			return netip.Addr{}, err
		} else if free {
			return addr, nil
		} else {
			addr = addr.Next()
		}
		if addr == start {
			return netip.Addr{}, fmt.Errorf("no address left in %v: remove pods, wait a minute after their removal, or give the machine a larger pod CIDR: %w", cidr, container.ErrBusy)
		}
	}
}

// usable: the last address stays unused, as the broadcast address of networks that have one.
func usable(cidr netip.Prefix, addr netip.Addr) bool {
	return addr.IsValid() && cidr.Contains(addr) && cidr.Contains(addr.Next())
}

// gateway is the machine's own address in its pod network, the first.
func gateway(cidr netip.Prefix) netip.Addr { return cidr.Masked().Addr().Next() }

func (a *addresses) take(addr netip.Addr, id string) (bool, error) {
	if _, ok := a.owner[addr]; ok {
		return false, nil
	}
	at, resting := a.freed[addr]
	if resting && a.now().Sub(at) < rest {
		return false, nil
	}
	if resting {
		if err := a.link(addr, id); err != nil {
			return false, err
		}
	} else if err := os.Symlink(id, a.path(addr)); err != nil {
		return false, err
	}
	delete(a.freed, addr)
	a.owner[addr], a.byID[id], a.last = id, addr, addr
	return true, nil
}

func (a *addresses) path(addr netip.Addr) string { return filepath.Join(a.dir, addr.String()) }

// link replaces the link of addr in one step.
func (a *addresses) link(addr netip.Addr, to string) error {
	tmp := a.path(addr) + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(to, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, a.path(addr))
}

// release gives back what id has.
func (a *addresses) release(id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	addr, ok := a.byID[id]
	if !ok {
		return nil
	}
	if err := a.link(addr, released); err != nil {
		return err
	}
	delete(a.owner, addr)
	delete(a.byID, id)
	a.freed[addr] = a.now()
	return nil
}

func (a *addresses) has(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.byID[id]
	return ok
}

func (a *addresses) owners() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.byID))
}
