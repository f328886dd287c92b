// Package lab is hosts on one machine, for tests and benchmarks on real
// containers: each host is a network namespace with directories, a cgroup and a
// containerd namespace of its own, in which an agent runs as it does on a
// machine. It needs root. What it cannot clean up, it reports as a failure.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// TB is what a lab needs of a test: the part of [testing.TB] that a benchmark
// without one can offer too.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(f func())
}

// pollInterval is how often a lab looks for what it waits for.
const pollInterval = 20 * time.Millisecond

// Eventually returns once f returns nil, and fails the test if it still does
// not at the deadline.
func Eventually(t TB, within time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		time.Sleep(pollInterval)
	}
}

// Never fails the test if f returns an error at any time within d: what must
// stay as it is.
func Never(t TB, d time.Duration, what string, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(d); time.Now().Before(deadline); time.Sleep(pollInterval) {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// Root is the top of the repository.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not in the repository", dir)
		}
	}
}

// program is a built program's path.
func program(t TB, name string) string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatalf("%v", err)
	}
	p := filepath.Join(root, "bin", name)
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%s is not built: call \"make build\"", p)
	}
	return p
}

// Image is the path of an image archive.
func Image(t TB, name string) string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatalf("%v", err)
	}
	p := filepath.Join(root, "bin", "images", name+".tar")
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%s is not built: call \"make images\"", p)
	}
	return p
}

// needs fails the test where it cannot run.
func needs(t TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("tests on real containers need root: network namespaces, mounts, cgroups")
	}
	for _, c := range []string{"containerd", "runc", "nft", "nsenter"} {
		if _, err := exec.LookPath(c); err != nil {
			t.Fatalf("tests on real containers need %s (\"make up\" installs it)", c)
		}
	}
}

// names makes the names of hosts and containerds of this process unique on
// the machine.
var names atomic.Int64

func unique(prefix string) string {
	return fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), names.Add(1))
}

// shortDir is a directory with a short path: those of unix sockets are limited.
func shortDir(t TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "lab")
	if err != nil {
		t.Fatalf("%v", err)
	}
	return dir
}

// Containerd is a containerd of the lab, for hosts to share.
type Containerd struct {
	t       TB
	dir     string
	Address string
	process *exec.Cmd
	ended   chan struct{}
}

// StartContainerd runs one until the test ends.
func StartContainerd(t TB) *Containerd {
	t.Helper()
	needs(t)
	c := &Containerd{t: t, dir: shortDir(t)}
	c.Address = filepath.Join(c.dir, "c.sock")
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"), c.Address, c.Address+".ttrpc")
	if err := os.WriteFile(filepath.Join(c.dir, "config.toml"), []byte(config), 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(c.remove)
	c.Start()
	return c
}

// Start runs it, also again after Kill, and returns when it answers.
func (c *Containerd) Start() {
	c.t.Helper()
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	defer log.Close()
	c.process = exec.Command("containerd", "--config", filepath.Join(c.dir, "config.toml"))
	c.process.Stdout, c.process.Stderr = log, log
	if err := c.process.Start(); err != nil {
		c.t.Fatalf("containerd: %v", err)
	}
	ended := make(chan struct{})
	c.ended = ended
	go func() {
		_ = c.process.Wait()
		close(ended)
	}()
	Eventually(c.t, 20*time.Second, "containerd answers", func() error {
		_, err := c.ctr("version")
		return err
	})
}

// Kill ends it with SIGKILL; what it started goes on.
func (c *Containerd) Kill() {
	c.t.Helper()
	if err := c.process.Process.Kill(); err != nil {
		c.t.Fatalf("kill containerd: %v", err)
	}
	<-c.ended
}

func (c *Containerd) ctr(args ...string) (string, error) {
	return output(exec.Command("ctr", append([]string{"--address", c.Address}, args...)...))
}

// remove stops it and checks that no host left anything in it.
func (c *Containerd) remove() {
	c.t.Helper()
	if left, err := c.ctr("namespace", "ls", "-q"); err != nil {
		c.t.Errorf("containerd: %v", err)
	} else if left = strings.TrimSpace(left); left != "" {
		c.t.Errorf("namespaces left in containerd: %s", strings.Fields(left))
	}
	if c.process != nil {
		_ = c.process.Process.Signal(unix.SIGTERM)
		select {
		case <-c.ended:
		case <-time.After(10 * time.Second):
			c.t.Logf("containerd does not end by SIGTERM")
			_ = c.process.Process.Kill()
			<-c.ended
		}
	}
	removeDir(c.t, c.dir)
}

// output runs a command and returns what it printed; the error holds what it
// said.
func output(c *exec.Cmd) (string, error) {
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s%s", strings.Join(c.Args, " "), err, out.String(), errOut.String())
	}
	return out.String(), nil
}

// exitCode is the code with which a command ended, -1 if it did not.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// within is a context for one command.
func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
