package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/troupe-sh/troupe/runtime/keeper"
	"golang.org/x/sys/unix"
)

// The waits before an agent that does not stay is started again.
const (
	againFirst = time.Second
	againMax   = time.Minute
	stayed     = time.Minute // an agent that ran so long begins anew, without a wait
)

// guard starts the agent again when it ends without having been told to.
type guard struct {
	log *slog.Logger

	mu      sync.Mutex
	release context.CancelFunc // of the agent that is guarded
	started time.Time          // the last time that one was started here
	wait    time.Duration      // before the next time
}

func newGuard(log *slog.Logger) *guard {
	return &guard{log: log, release: func() {}}
}

// watch guards a from now on, and no other, until ctx ends.
func (g *guard) watch(ctx context.Context, a keeper.Agent) error {
	if err := a.Check(); err != nil {
		return err
	}
	// Whatever has this process id later, the descriptor is of the one that has it now.
	fd, err := unix.PidfdOpen(a.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("agent %d: %w", a.PID, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	g.mu.Lock()
	g.release()
	g.release = cancel
	g.mu.Unlock()
	g.log.Info("agent is guarded", "pid", a.PID)
	go func() {
		defer cancel()
		process := os.NewFile(uintptr(fd), "agent")
		defer process.Close()
		if err := awaitExit(ctx, process); err != nil {
			if ctx.Err() == nil {
				g.log.Error("agent is not guarded any more", "pid", a.PID, "error", err)
			}
			return
		}
		g.again(ctx, a)
	}()
	return nil
}

// awaitExit returns when the process has ended, or with an error when ctx has.
func awaitExit(ctx context.Context, process *os.File) error {
	defer context.AfterFunc(ctx, func() { _ = process.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := process.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
}

// again starts the agent until one stays long enough to ask for its own guard,
// which ends ctx, or until one ends in order.
func (g *guard) again(ctx context.Context, a keeper.Agent) {
	for ctx.Err() == nil {
		wait := g.pause(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if _, err := os.Stat(a.PIDFile); err != nil {
			g.log.Info("agent has ended in order", "pid", a.PID)
			return
		}
		agent, err := start(a)
		if err != nil {
			g.log.Error("agent does not start", "program", a.Args[0], "error", err)
			continue
		}
		g.log.Warn("agent gone, started again", "pid", agent.Process.Pid, "after", wait)
		ended := make(chan error, 1)
		go func() { ended <- agent.Wait() }()
		select {
		case <-ctx.Done():
		case err := <-ended:
			g.log.Error("agent ended while it came up", "error", err)
		}
	}
}

// pause is how long to wait before the next start, which counts from then on.
func (g *guard) pause(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	wait := g.wait
	if now.Sub(g.started) > stayed {
		wait = 0
	}
	g.started, g.wait = now.Add(wait), min(max(2*wait, againFirst), againMax)
	return wait
}

// start starts the agent as it was started before, in a session of its own.
func start(a keeper.Agent) (*exec.Cmd, error) {
	out, err := os.OpenFile(a.Output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(a.Args[0], a.Args[1:]...)
	cmd.Dir, cmd.Env = a.Dir, a.Env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, cmd.Start()
}
