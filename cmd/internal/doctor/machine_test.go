package doctor

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheMachineIsLookedAtAndLeftAsItWas(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("namespaces need root: run the tests as root")
	}
	before := links(t)
	m := Machine{}
	for what, err := range map[string]error{"namespaces": m.Namespaces(), "links": m.Links(), "nftables": m.Nftables()} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after := links(t); after != before {
		t.Errorf("%d links, %d before", after, before)
	}
	if _, err := m.ReadFile("/none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := m.Program("no-such-program"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a program that is not there: %v", err)
	}
	r, err := m.Room(filepath.Join(t.TempDir(), "not", "yet"))
	if err != nil || r.Total == 0 || r.Free > r.Total {
		t.Errorf("room %+v, %v", r, err)
	}
	if n, err := m.OpenFiles(); err != nil || n == 0 {
		t.Errorf("open files %d, %v", n, err)
	}
	if _, _, err := m.Now(); err != nil {
		t.Errorf("clock: %v", err)
	}
	all, err := m.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if a.Overlaps(netip.MustParsePrefix("127.0.0.0/8")) {
			t.Errorf("an address of lo: %s", a)
		}
	}
}

func links(t *testing.T) int {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestWhoListens(t *testing.T) {
	m, dir := Machine{}, t.TempDir()
	path := filepath.Join(dir, "s")
	if err := m.Listens(t.Context(), path); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Listens(t.Context(), path); err != nil {
		t.Errorf("somebody listens: %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := m.Listens(t.Context(), path); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that was killed listened: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Listens(t.Context(), file); !errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, ErrNotFound) {
		t.Errorf("a plain file: %v", err)
	}
	if _, err := m.Containerd(t.Context(), path); !errors.Is(err, ErrNotFound) {
		t.Errorf("containerd: %v", err)
	}
}
