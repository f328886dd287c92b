package e2e_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/troupe-sh/troupe/test/lab"
)

// finding is one line of "troupe doctor -o json".
type finding struct{ Check, Status, Found, Remedy string }

// examine runs the doctor on a host and returns what it found of each check.
func examine(t *testing.T, h *lab.Host, args ...string) (map[string]finding, int) {
	t.Helper()
	out, said, code := h.TryTroupe("", append([]string{"doctor", "-o", "json", "--data-dir", h.Data, "--run-dir", h.Run}, args...)...)
	var all struct{ Checks []finding }
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("doctor: exit code %d, %v: %s%s", code, err, out, said)
	}
	found := map[string]finding{}
	for _, f := range all.Checks {
		found[f.Check] = f
	}
	return found, code
}

// TestDoctor: where agents run, a machine is fit; what is broken is found.
func TestDoctor(t *testing.T) {
	containerd := lab.StartContainerd(t)
	h := lab.NewHost(t, lab.Options{Containerd: containerd})
	found, code := examine(t, h, "--containerd", containerd.Address)
	if code != 0 || found["agent"].Status != "WARN" || found["socket"].Status != "OK" || found["containerd"].Status != "OK" {
		t.Errorf("without an agent: exit code %d: %v", code, found)
	}
	h.Up()
	found, code = examine(t, h)
	for check, f := range found {
		// What the machine of the tests has no more of than it has.
		if f.Status != "OK" && !slices.Contains([]string{"rights", "limits", "clock", "resolver", "memory", "disk"}, check) || f.Status == "FAIL" {
			t.Errorf("with an agent: %+v", f)
		}
	}
	if a := found["agent"].Found; code != 0 || !strings.Contains(a, "node "+h.Name+" is Ready") {
		t.Errorf("exit code %d, agent: %s", code, a)
	}

	containerd.Kill()
	lab.Eventually(t, patience, "the doctor finds that containerd is away and the node is not Ready", func() error {
		found, code = examine(t, h)
		if code == 1 && found["containerd"].Status == "FAIL" && found["agent"].Status == "FAIL" {
			return nil
		}
		return fmt.Errorf("exit code %d: %+v, %+v", code, found["containerd"], found["agent"])
	})
	containerd.Start()
	lab.Eventually(t, patience, "the doctor is content again", func() error {
		if found, code = examine(t, h); code != 0 {
			return fmt.Errorf("%v", found)
		}
		return nil
	})

	if found, code = examine(t, h, "--pod-cidr", "127.0.0.0/8"); code != 0 {
		t.Errorf("pods' addresses that only lo has: %+v", found["addresses"])
	}
	h.Exec("ip", "link", "add", "lan", "type", "veth")
	h.Exec("ip", "addr", "add", "10.244.200.1/24", "dev", "lan")
	if found, code = examine(t, h); code != 1 || found["addresses"].Status != "FAIL" || !strings.Contains(found["addresses"].Found, "10.244.200.1/24") {
		t.Errorf("an address in the way: exit code %d: %+v", code, found["addresses"])
	}
	h.Exec("ip", "link", "del", "lan")
}
