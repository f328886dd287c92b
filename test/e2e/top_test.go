package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/troupe-sh/troupe/runtime/cgroup"
	"github.com/troupe-sh/troupe/test/lab"
)

// TestTop: what containers really use is what top shows.
func TestTop(t *testing.T) {
	h := start(t, "troupe-test")
	h.TroupeIn(pod("burner", "troupe-test", []string{"stress", "-cpus", "1"}), "apply", "-f", "-")
	h.TroupeIn(pod("hog", "troupe-test", []string{"stress", "-mem-total", "64Mi", "-mem-alloc-size", "1Mi"}), "apply", "-f", "-")
	h.TroupeIn(pod("idle", "troupe-test", nil), "apply", "-f", "-")
	for _, name := range []string{"burner", "hog", "idle"} {
		waitPod(t, h, name, "runs", inPhase(corev1.PodRunning))
	}
	first(t, h)
	var shown map[string][2]int64
	lab.Eventually(t, patience, "top shows all three pods at what they do", func() error {
		shown = top(t, h, "pods")
		for _, name := range []string{"burner", "hog", "idle"} {
			if _, ok := shown[name]; !ok {
				return fmt.Errorf("no %s in %v", name, shown)
			}
		}
		// The hog may still have been filling its memory, and the burner starting.
		if shown["burner"][0] <= 500 || shown["hog"][1] < 64<<20 {
			return fmt.Errorf("burner %v, hog %v (mCPU, bytes)", shown["burner"], shown["hog"])
		}
		return nil
	})
	if m := shown["hog"][1]; m > 128<<20 {
		t.Errorf("the hog of 64Mi uses %d bytes", m)
	}
	if i := shown["idle"]; i[0] > 100 || i[1] > 64<<20 {
		t.Errorf("the idle one uses %v", i)
	}
	if most := strings.Fields(h.Troupe("top", "pods", "--no-headers", "--sort-by", "cpu"))[0]; most != "burner" {
		t.Errorf("first by CPU: %s", most)
	}
	if out := h.Troupe("top", "pod", "hog", "--containers"); !strings.Contains(out, "hog   c ") {
		t.Errorf("containers:\n%s", out)
	}
	if n := top(t, h, "nodes")[h.Name]; n[0] <= 500 || n[1] < 64<<20 {
		t.Errorf("the machine uses %v", n)
	}
	h.Troupe("delete", "pod", "burner")
	if _, ok := top(t, h, "pods")["burner"]; ok {
		t.Errorf("top shows a pod that is gone")
	}
}

// top is what is used by name: thousandths of a core, and bytes.
func top(t *testing.T, h *lab.Host, what string) map[string][2]int64 {
	t.Helper()
	out, said, code := h.TryTroupe("", "top", what, "--no-headers")
	if code != 0 && !strings.Contains(said, "metrics not available yet") {
		t.Fatalf("top %s: exit code %d: %s%s", what, code, out, said)
	}
	used := map[string][2]int64{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		memory := f[2]
		if what == "nodes" {
			memory = f[3]
		}
		used[f[0]] = [2]int64{quantity(t, f[1]).MilliValue(), quantity(t, memory).Value()}
	}
	return used
}

func quantity(t *testing.T, s string) *resource.Quantity {
	t.Helper()
	q, err := resource.ParseQuantity(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return &q
}

// first gives the host's pods the processor before everything else on this
// machine, whatever that does.
func first(t *testing.T, h *lab.Host) {
	t.Helper()
	file, most := filepath.Join("/sys/fs/cgroup/cpu", h.Cgroup, "cpu.shares"), "262144"
	if cgroup.Unified() {
		file, most = filepath.Join("/sys/fs/cgroup", h.Cgroup, "cpu.weight"), "10000"
	}
	if err := os.WriteFile(file, []byte(most), 0o644); err != nil {
		t.Fatal(err)
	}
}
