package host

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
)

func TestFactsOfThisMachine(t *testing.T) {
	want := netip.MustParseAddr("192.0.2.7")
	h := New(t.TempDir(), want)
	if a := h.Addrs(); len(a) > 0 {
		t.Errorf("addresses %v of a machine that nobody looked at", a)
	}
	f, err := h.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a := h.Addrs(); !slices.Equal(a, []netip.Addr{want}) {
		t.Errorf("addresses %v, want %v", a, want)
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
