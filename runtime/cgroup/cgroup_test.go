package cgroup_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/troupe-sh/troupe/runtime/cgroup"
	"github.com/troupe-sh/troupe/runtime/container"
)

// parent is a tree of this test's own.
func parent(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("control groups need root: run the tests as root")
	}
	p := fmt.Sprintf("/troupe-test-%d", os.Getpid())
	t.Cleanup(func() {
		if err := cgroup.Remove(p); err != nil {
			t.Error(err)
		}
	})
	return p
}

func read(t *testing.T, controller, group, file string) string {
	t.Helper()
	if cgroup.Unified() {
		controller = ""
	}
	raw, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, group, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func TestLimitsAreSetAndSetAnew(t *testing.T) {
	p := parent(t)
	g := cgroup.Path(p, "Burstable", "u1")
	for _, limit := range []int64{64 << 20, 32 << 20} {
		if err := cgroup.Make(g, container.Resources{Memory: limit, PIDs: 100, CPUShares: 512, CPUQuota: 50_000}); err != nil {
			t.Fatal(err)
		}
		file := "memory.limit_in_bytes"
		if cgroup.Unified() {
			file = "memory.max"
		}
		if got := read(t, "memory", g, file); got != strconv.FormatInt(limit, 10) {
			t.Errorf("memory limit %s, not %d", got, limit)
		}
		if got := read(t, "pids", g, "pids.max"); got != "100" {
			t.Errorf("pids limit %s", got)
		}
	}
	pods, err := cgroup.Pods(p)
	if err != nil || len(pods) != 1 || pods["u1"] != g {
		t.Errorf("pods %v, %v", pods, err)
	}
}

func TestUsageAndRemovalWithAProcessInside(t *testing.T) {
	p := parent(t)
	g := cgroup.Path(p, "BestEffort", "u2")
	if err := cgroup.Make(g, container.Resources{}); err != nil {
		t.Fatal(err)
	}
	// A shell puts itself into the group, in every hierarchy, and burns.
	cmd := exec.Command("sh", "-c", `for f in $(find /sys/fs/cgroup -path "*$1/cgroup.procs"); do echo $$ >"$f"; done; echo in; while :; do :; done`, "sh", g)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan error, 1)
	go func() { reaped <- cmd.Wait() }()

	for deadline := time.Now().Add(10 * time.Second); ; {
		use, err := cgroup.Usage(g)
		if err != nil {
			t.Fatal(err)
		}
		if use.CPU > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no CPU used: %+v", use)
		}
	}
	if n, err := cgroup.OOMKills(g); err != nil || n != 0 {
		t.Errorf("OOM kills: %d, %v", n, err)
	}
	if err := cgroup.Remove(g); err != nil {
		t.Fatal(err)
	}
	<-reaped
	if _, err := cgroup.Usage(g); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("usage after removal: %v", err)
	}
	if err := cgroup.Remove(g); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}
