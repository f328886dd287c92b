package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
)

// PrivateConfig says where a containerd of our own stands.
type PrivateConfig struct {
	Binary  string // containerd if empty, found in PATH
	RunDir  string // socket, state, process ID, under containerd/
	DataDir string // images and roots, under containerd/
	Log     *slog.Logger
}

// Daemon is a containerd of our own. It outlives us: the next agent takes it over.
type Daemon struct {
	Address string
	PID     int
	pidfd   int
}

// socketLimit is what the kernel takes as a unix socket's path.
const socketLimit = 107

// No plugin that we don't use: the daemon starts faster without.
const privateConfig = `# Written by Troupe at every start.
version = 2
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = %q
`

// Private takes over the containerd that runs under our directories, or starts
// one, and returns when it answers.
func Private(ctx context.Context, c PrivateConfig) (*Daemon, error) {
	d, err := private(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("private containerd under %s: %w", c.RunDir, err)
	}
	return d, nil
}

func private(ctx context.Context, c PrivateConfig) (*Daemon, error) {
	run, data := filepath.Join(c.RunDir, "containerd"), filepath.Join(c.DataDir, "containerd")
	for _, dir := range []string{run, data} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	address := filepath.Join(run, "containerd.sock")
	if len(address) > socketLimit {
		return nil, fmt.Errorf("its socket's path %q is too long: choose a shorter run directory", address)
	}
	config := filepath.Join(run, "config.toml")
	if d := adopt(run, config, address); d != nil {
		if err := d.answers(ctx); err == nil {
			c.Log.Info("private containerd taken over", "pid", d.PID)
			return d, nil
		}
		c.Log.Warn("private containerd does not answer, started again", "pid", d.PID)
		if err := d.end(syscall.SIGKILL); err != nil {
			return nil, err
		}
	}
	text := fmt.Sprintf(privateConfig, data, filepath.Join(run, "state"), address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	binary := c.Binary
	if binary == "" {
		binary = "containerd"
	}
	binary, err := exec.LookPath(binary)
	if err != nil {
		return nil, fmt.Errorf("%w: install containerd and runc", err)
	}
	output, err := os.OpenFile(filepath.Join(run, "containerd.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	cmd := exec.Command(binary, "--config", config)
	cmd.Stdout, cmd.Stderr = output, output
	// A session of its own: neither our end nor our terminal's ends it.
	d := &Daemon{Address: address}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &d.pidfd}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = cmd.Wait() }() // reaped; Wait below hears of it too
	if err := os.WriteFile(pidFile(run), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	d.PID = cmd.Process.Pid
	if err := unix.SetNonblock(d.pidfd, true); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	if err := d.answers(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: see %s", err, output.Name()), d.end(syscall.SIGKILL))
	}
	c.Log.Info("private containerd started", "pid", d.PID)
	return d, nil
}

func pidFile(run string) string { return filepath.Join(run, "containerd.pid") }

// adopt finds the daemon that a process ID file names, if it still is one with
// our configuration.
func adopt(run, config, address string) *Daemon {
	raw, err := os.ReadFile(pidFile(run))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid <= 1 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil
	}
	// Looked at after the descriptor holds it, so that it is not another by then.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), "\x00"+config+"\x00") {
		_ = unix.Close(fd)
		return nil
	}
	return &Daemon{Address: address, PID: pid, pidfd: fd}
}

// answers waits until the daemon serves, has ended, or ctx has.
func (d *Daemon) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	go func() {
		if d.Wait(ctx) == nil {
			cancel()
		}
	}()
	for {
		if _, err := os.Stat(d.Address); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no socket at %s: %w", d.Address, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	c, err := client.New(d.Address, client.WithTimeout(time.Second))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.IsServing(ctx)
	return err
}

// Wait returns nil when the daemon has ended: start it again with Private. Its
// containers go on without it.
func (d *Daemon) Wait(ctx context.Context) error {
	fd, err := unix.FcntlInt(uintptr(d.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("wait for containerd, process %d: %w", d.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd") // not blocking, so the Go runtime waits for it
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	conn, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for containerd, process %d: %w", d.PID, err)
	}
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Stop ends the daemon. What it runs goes on.
func (d *Daemon) Stop(ctx context.Context) error {
	if err := d.end(syscall.SIGTERM); err == nil || ctx.Err() != nil {
		return err
	}
	return d.end(syscall.SIGKILL)
}

func (d *Daemon) end(sig syscall.Signal) error {
	if err := unix.PidfdSendSignal(d.pidfd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end containerd, process %d: %w", d.PID, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return d.Wait(ctx)
}
