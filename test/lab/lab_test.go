package lab_test

import (
	"strings"
	"testing"

	"github.com/troupe-sh/troupe/test/lab"
)

func TestAHostHasANetworkOfItsOwn(t *testing.T) {
	h := lab.NewHost(t, lab.Options{})
	if out := h.Exec("ip", "-o", "link"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "lo:") || !strings.Contains(out, "UP") {
		t.Fatalf("links of a new host:\n%s", out)
	}
	if left := h.Left(); len(left) > 0 {
		t.Fatalf("left before anything was there: %v", left)
	}
	h.Exec("nft", "add", "table", "ip", "something")
	h.Exec("ip", "addr", "add", "10.1.2.3/32", "dev", "lo", "label", "lo:x")
	left := strings.Join(h.Left(), "\n")
	for _, want := range []string{"table table ip something", "address"} {
		if !strings.Contains(left, want) {
			t.Errorf("not seen as left: %s in %q", want, left)
		}
	}
	h.Exec("nft", "delete", "table", "ip", "something")
	h.Exec("ip", "addr", "del", "10.1.2.3/32", "dev", "lo")
}

func TestContainerdComesAgain(t *testing.T) {
	c := lab.StartContainerd(t)
	c.Kill()
	c.Start()
}
