package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestAMachineMayResolveNoNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if d, err := dnsOf(file); err != nil || len(d.Servers) > 0 {
		t.Errorf("no file: %+v, %v", d, err)
	}
	if err := os.WriteFile(file, []byte("nameserver 192.0.2.53\noptions ndots:2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if d, err := dnsOf(file); err != nil || !slices.Equal(d.Servers, []string{"192.0.2.53"}) || !slices.Equal(d.Options, []string{"ndots:2"}) {
		t.Errorf("read: %+v, %v", d, err)
	}
}
