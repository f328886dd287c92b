package keeper_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/troupe-sh/troupe/runtime/keeper"
	"golang.org/x/sys/unix"
)

// guardedRole is an agent that wants to be started again. With a file "broken"
// in its directory it ends as soon as it comes up.
func guardedRole(dir string) error {
	if err := appendTo(filepath.Join(dir, "starts"), "."); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "broken")); err == nil {
		return fmt.Errorf("broken")
	}
	ctx := context.Background()
	cfg := config(dir, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	c, err := keeper.Start(ctx, cfg)
	if err != nil {
		return err
	}
	pidFile := filepath.Join(dir, "pid")
	err = c.Guard(ctx, keeper.Agent{
		PID: os.Getpid(), Args: []string{cfg.Path, "guarded", dir}, Dir: dir, Env: os.Environ(),
		Output: filepath.Join(dir, "output"), PIDFile: pidFile,
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(pidFile+".new", []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	if err := os.Rename(pidFile+".new", pidFile); err != nil {
		return err
	}
	select {}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// guarded is such an agent, and what becomes of it.
type guarded struct {
	t   *testing.T
	dir string
}

func startGuarded(t *testing.T) guarded {
	g := guarded{t, runDir(t)}
	cfg := config(g.dir, quiet())
	first := exec.Command(cfg.Path, "guarded", g.dir)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = first.Wait() }()
	t.Cleanup(func() { // nothing stays: no agent in its place, then no keeper
		pid, _ := strconv.Atoi(g.read("pid"))
		_ = os.Remove(filepath.Join(g.dir, "pid"))
		if pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if keeper, err := keeperPID(g.dir); err == nil {
			_ = unix.Kill(keeper, unix.SIGKILL)
		}
	})
	return g
}

func (g guarded) read(name string) string {
	b, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil && !os.IsNotExist(err) {
		g.t.Fatal(err)
	}
	return string(b)
}

// await is the agent's process id once there is one that is not the last.
func (g guarded) await(last int) (pid int) {
	g.t.Helper()
	g.until("an agent runs", func() bool {
		pid, _ = strconv.Atoi(g.read("pid"))
		return pid != 0 && pid != last
	})
	return pid
}

func (g guarded) until(what string, so func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("not in a minute: %s\n%s\n%s", what, g.read("keeper.log"), g.read("output"))
		}
	}
}

func (g guarded) kill(pid int) {
	g.t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		g.t.Fatal(err)
	}
}

func TestAnAgentThatIsKilledIsStartedAgain(t *testing.T) {
	g := startGuarded(t)
	first := g.await(0)
	g.kill(first)
	second := g.await(first)

	// A keeper that was started in place of another guards it too.
	old, err := keeperPID(g.dir)
	if err != nil {
		t.Fatal(err)
	}
	g.kill(old)
	g.until("another keeper guards it", func() bool {
		return strings.Count(g.read("keeper.log"), fmt.Sprintf("\"agent is guarded\" pid=%d\n", second)) == 2
	})
	g.kill(second)
	third := g.await(second)

	// Whoever stops it removes its file first.
	if err := os.Remove(filepath.Join(g.dir, "pid")); err != nil {
		t.Fatal(err)
	}
	g.kill(third)
	g.until("the keeper saw its end", func() bool { return strings.Contains(g.read("keeper.log"), "agent has ended in order") })
	if n := len(g.read("starts")); n != 3 {
		t.Errorf("started %d times, want 3", n)
	}
}

func TestAnAgentThatDoesNotComeUpIsTriedAgain(t *testing.T) {
	g := startGuarded(t)
	first := g.await(0)
	broken := filepath.Join(g.dir, "broken")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.kill(first)
	g.until("it was tried twice", func() bool { return len(g.read("starts")) >= 3 })
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	g.await(first)
	if !strings.Contains(g.read("output"), "broken") {
		t.Errorf("what it said when it failed: %q", g.read("output"))
	}
}

func TestAnAgentThatCannotBeGuarded(t *testing.T) {
	dir := runDir(t)
	c := start(t, config(dir, quiet()))
	whole := keeper.Agent{PID: os.Getpid(), Args: []string{"/bin/true"}, Output: "/dev/null", PIDFile: dir + "/pid"}
	for want, spoil := range map[string]func(*keeper.Agent){
		"process id 0":                   func(a *keeper.Agent) { a.PID = 0 },
		"absolute path":                  func(a *keeper.Agent) { a.Args = []string{"true"} },
		"must be absolute paths":         func(a *keeper.Agent) { a.PIDFile = "pid" },
		"agent 4194304: no such process": func(a *keeper.Agent) { a.PID = 1 << 22 }, // above any
	} {
		a := whole
		spoil(&a)
		if err := c.Guard(t.Context(), a); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
