package host

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/troupe-sh/troupe/runtime/container"
)

func TestFactsOfThisMachine(t *testing.T) {
	want := netip.MustParseAddr("192.0.2.7")
	f, err := New(t.TempDir(), want).Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.Addr != want {
		t.Errorf("address %v, want the operator's %v", f.Addr, want)
	}
	if f.OS != "linux" || f.Arch == "" || f.Kernel == "" || f.OSImage == "" || f.BootID == "" {
		t.Errorf("what it is: %+v", f)
	}
	if f.CPUs < 1 || f.MemoryFree <= 0 || f.MemoryFree > f.Memory || f.StorageFree > f.Storage || f.PIDs < 1 || f.PIDs > f.PIDsMax {
		t.Errorf("what it has: %+v", f)
	}
	if f, err = New(t.TempDir(), netip.Addr{}).Facts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.Addr.IsLoopback() {
		t.Errorf("address %v: nobody else reaches that", f.Addr)
	}
	if _, err := New(filepath.Join(t.TempDir(), "missing"), want).Facts(t.Context()); err == nil {
		t.Error("a data directory that is not there is no error")
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if d, err := resolvConf(path); err != nil || len(d.Servers) > 0 {
		t.Errorf("without a file: %v, %v", d, err)
	}
	text := "# made by hand\ndomain old.example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n; no\nsearch a.example b.example\noptions ndots:5 edns0\nsortlist\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := resolvConf(path)
	want := container.DNS{
		Servers:  []string{"192.0.2.1", "192.0.2.2"},
		Searches: []string{"a.example", "b.example"},
		Options:  []string{"ndots:5", "edns0"},
	}
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}
}
