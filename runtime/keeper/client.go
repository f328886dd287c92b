package keeper

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config of a Client.
type Config struct {
	Path    string // of the program troupe-keeper
	RunDir  string // its socket and state; emptied by a reboot or not, either works
	DataDir string // keeper.log stands there
	Log     *slog.Logger

	// RestartMax bounds the growing wait before a keeper that does not stay is started again. 0: 5 s.
	RestartMax time.Duration
}

// Client is the agent's end: it starts the keeper, starts it again when it
// dies, and holds open what the keeper reads, so that no byte is lost while
// there is none. Its methods may be called at any time by anyone; what comes
// while the keeper is being restarted waits.
type Client struct {
	cfg    Config
	cancel context.CancelFunc
	done   chan struct{} // closed when watch has returned

	mu    sync.Mutex
	held  map[string][]int // container ID → descriptors of its FIFOs, never read
	agent *Agent           // that every keeper has to guard; nil: none
}

const (
	startTimeout  = 10 * time.Second
	retryFirst    = 10 * time.Millisecond
	answerTimeout = 20 * time.Second // longer than the keeper drains
	keeperLogMax  = 1 << 20
	attachAgain   = 50 * time.Millisecond // when the keeper is being replaced
)

// errGone is a keeper that does not answer; it may be back soon.
var errGone = errors.New("keeper does not answer")

// Start finds the running keeper or starts one. One that was started from
// another file than Path, or speaks another protocol, is replaced without
// losing or doubling a line. ctx bounds the start, not the client.
func Start(ctx context.Context, cfg Config) (*Client, error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, err
	}
	cfg.Path = path
	cfg.RestartMax = cmp.Or(cfg.RestartMax, 5*time.Second)
	for _, dir := range []string{cfg.RunDir, cfg.DataDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	watching, cancel := context.WithCancel(context.Background())
	c := &Client{cfg: cfg, cancel: cancel, done: make(chan struct{}), held: map[string][]int{}}
	conn, err := c.ensure(ctx)
	if err != nil {
		cancel()
		c.release()
		return nil, err
	}
	go c.watch(watching, conn)
	return c, nil
}

// Close leaves the keeper running and ends the client.
func (c *Client) Close() error {
	c.cancel()
	<-c.done
	c.release()
	return nil
}

// Stop ends the keeper too. What containers print stays in their FIFOs and the
// containers block when those are full: for the end of a machine's service.
func (c *Client) Stop(ctx context.Context) error {
	c.cancel()
	<-c.done
	defer c.release()
	conn, err := dial(ctx, c.cfg.RunDir)
	if err != nil {
		return nil // there is none
	}
	defer conn.Close()
	return stop(ctx, conn)
}

// Follow writes the container's output to l.Path from now on. Saying it again
// changes nothing. It comes before the container's start: the shim waits until
// its FIFOs have a reader.
func (c *Client) Follow(ctx context.Context, l Log) error {
	if err := l.Check(); err != nil {
		return err
	}
	if _, err := c.ask(ctx, Request{Op: OpFollow, Log: &l}); err != nil {
		return fmt.Errorf("follow output of container %s: %w", l.ContainerID, err)
	}
	return c.hold(l)
}

// Drain returns when all that a container printed until its end is in the
// file. With a container that still runs it returns after some seconds.
func (c *Client) Drain(ctx context.Context, id string) error {
	if _, err := c.ask(ctx, Request{Op: OpDrain, ContainerID: id}); err != nil {
		return fmt.Errorf("drain output of container %s: %w", id, err)
	}
	return nil
}

// Forget drains and then follows the container no longer. Its log stays; its
// FIFOs may be removed. Unknown IDs are no error.
func (c *Client) Forget(ctx context.Context, id string) error {
	if _, err := c.ask(ctx, Request{Op: OpForget, ContainerID: id}); err != nil {
		return fmt.Errorf("forget output of container %s: %w", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fd := range c.held[id] {
		unix.Close(fd)
	}
	delete(c.held, id)
	return nil
}

// Attach makes what a container prints be in its log at once until ctx ends:
// also the beginning of a line, and the end of one as a terminal has it. Else
// the log holds whole lines. A keeper that comes after this one is told too.
func (c *Client) Attach(ctx context.Context, id string) error {
	for {
		conn, err := dial(ctx, c.cfg.RunDir)
		if err == nil {
			if _, err = exchange(ctx, conn, Request{Op: OpAttach, ContainerID: id}); err == nil {
				err = errors.Join(errGone, awaitEnd(ctx, conn))
			}
			conn.Close()
		}
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errGone) {
			return fmt.Errorf("attach to output of container %s: %w", id, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(attachAgain):
		}
	}
}

// List is what the keeper follows, sorted by container ID.
func (c *Client) List(ctx context.Context) ([]Log, error) {
	a, err := c.ask(ctx, Request{Op: OpList})
	return a.Logs, err
}

// Ping returns when the keeper answers.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.ask(ctx, Request{Op: OpPing})
	return err
}

// Guard has the keeper, and each one after it, start agent a again when it ends
// without having been told to.
func (c *Client) Guard(ctx context.Context, a Agent) error {
	if err := a.Check(); err != nil {
		return err
	}
	c.mu.Lock()
	c.agent = &a
	c.mu.Unlock()
	if _, err := c.ask(ctx, Request{Op: OpGuard, Agent: &a}); err != nil {
		return fmt.Errorf("guard the agent: %w", err)
	}
	return nil
}

// ask sends q until a keeper has answered it.
func (c *Client) ask(ctx context.Context, q Request) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for wait := retryFirst; ; wait = min(2*wait, time.Second) {
		a, err := once(ctx, c.cfg.RunDir, q)
		if !errors.Is(err, errGone) {
			return a, err
		}
		select {
		case <-ctx.Done():
			return a, fmt.Errorf("%w; see %s", err, c.logPath())
		case <-time.After(wait):
		}
	}
}

func once(ctx context.Context, runDir string, q Request) (Response, error) {
	conn, err := dial(ctx, runDir)
	if err != nil {
		return Response{}, err
	}
	defer conn.Close()
	return exchange(ctx, conn, q)
}

func dial(ctx context.Context, runDir string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", Socket(runDir))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	return conn, nil
}

func exchange(ctx context.Context, conn net.Conn, q Request) (Response, error) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	b, err := json.Marshal(q)
	if err != nil {
		return Response{}, err
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		return Response{}, fmt.Errorf("%w: %w", errGone, err)
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return Response{}, fmt.Errorf("%w: %w", errGone, err)
	}
	var a Response
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("keeper's answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// stop ends the keeper on the other end and returns when it is gone.
func stop(ctx context.Context, conn net.Conn) error {
	if _, err := exchange(ctx, conn, Request{Op: OpStop}); err != nil {
		return err
	}
	return awaitEnd(ctx, conn)
}

// awaitEnd returns when the keeper on the other end is gone, which never says
// anything unasked.
func awaitEnd(ctx context.Context, conn net.Conn) error {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_, err := conn.Read(make([]byte, 1))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return errors.New("keeper spoke unasked")
	}
	return nil
}

// ensure makes sure that the right keeper runs, and returns a connection to
// it, whose end is the keeper's end.
func (c *Client) ensure(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if conn, err := dial(ctx, c.cfg.RunDir); err == nil {
		same, err := c.same(ctx, conn)
		if err != nil {
			conn.Close()
			return nil, err
		}
		if same {
			return conn, nil
		}
		c.cfg.Log.Info("replacing the keeper", "path", c.cfg.Path)
		err = stop(ctx, conn)
		conn.Close()
		if err != nil {
			return nil, fmt.Errorf("replace the running keeper: %w", err)
		}
	}
	if err := c.spawn(ctx); err != nil {
		return nil, err
	}
	conn, err := dial(ctx, c.cfg.RunDir)
	if err != nil {
		return nil, err
	}
	_, err = c.same(ctx, conn)
	if err == nil {
		err = c.guarded(ctx, conn)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// guarded tells a new keeper which agent to guard.
func (c *Client) guarded(ctx context.Context, conn net.Conn) error {
	c.mu.Lock()
	a := c.agent
	c.mu.Unlock()
	if a == nil {
		return nil
	}
	_, err := exchange(ctx, conn, Request{Op: OpGuard, Agent: a})
	return err
}

// same says whether the keeper at the other end of conn is the one that would
// be started now. What it follows is held from here on.
func (c *Client) same(ctx context.Context, conn net.Conn) (bool, error) {
	a, err := exchange(ctx, conn, Request{Op: OpList})
	if err != nil {
		return false, err
	}
	for _, l := range a.Logs {
		if err := c.hold(l); err != nil {
			c.cfg.Log.Warn("output not secured against the keeper's death", "container", l.ContainerID, "error", err)
		}
	}
	peer, err := peerPID(conn)
	if err != nil {
		return false, err
	}
	running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", peer))
	if err != nil {
		return false, fmt.Errorf("find the running keeper's program: %w", err)
	}
	ours, err := os.Stat(c.cfg.Path)
	if err != nil {
		return false, fmt.Errorf("find the keeper's program: %w", err)
	}
	return a.Version == Version && os.SameFile(running, ours), nil
}

func peerPID(conn net.Conn) (int32, error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	return cred.Pid, nil
}

// spawn starts a keeper in a session of its own and returns when it is ready.
func (c *Client) spawn(ctx context.Context) error {
	flags := os.O_WRONLY | os.O_APPEND | os.O_CREATE
	if st, err := os.Stat(c.logPath()); err == nil && st.Size() > keeperLogMax {
		flags |= os.O_TRUNC
	}
	out, err := os.OpenFile(c.logPath(), flags, 0o640)
	if err != nil {
		return err
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(c.cfg.Path, "--run-dir", c.cfg.RunDir, "--ready-fd", "3") // the first of ExtraFiles
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	go func() { _ = cmd.Wait() }() // its end is seen on the socket; here it is only reaped
	defer context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })()
	said, err := io.ReadAll(r)
	if err == nil && string(said) == "ok" {
		return nil
	}
	if err == nil {
		err = errors.New("it ended")
		if len(said) > 0 {
			err = errors.New(string(said))
		}
	}
	return fmt.Errorf("start the keeper %s: %w; see %s", c.cfg.Path, err, c.logPath())
}

func (c *Client) logPath() string { return filepath.Join(c.cfg.DataDir, "keeper.log") }

// watch starts the keeper again when it is gone: at once, and later and later
// when it does not stay.
func (c *Client) watch(ctx context.Context, conn net.Conn) {
	defer close(c.done)
	wait := time.Duration(0)
	for {
		since := time.Now()
		err := awaitEnd(ctx, conn)
		conn.Close()
		if ctx.Err() != nil {
			return
		}
		if time.Since(since) > 2*c.cfg.RestartMax {
			wait = 0
		}
		for conn = nil; conn == nil; wait = min(max(2*wait, retryFirst), c.cfg.RestartMax) {
			c.cfg.Log.Warn("keeper gone, starting it again", "after", wait, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			if ctx.Err() != nil {
				return
			}
			conn, err = c.ensure(ctx)
		}
	}
}

// hold opens the container's FIFOs and keeps them: the kernel drops what is in
// a FIFO when the last descriptor goes, and a container may end while there is
// no keeper.
func (c *Client) hold(l Log) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.held[l.ContainerID]; ok {
		return nil
	}
	var fds []int
	for _, path := range l.FIFOs() {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return fmt.Errorf("hold %s: %w", path, err)
		}
		fds = append(fds, fd)
	}
	c.held[l.ContainerID] = fds
	return nil
}

func (c *Client) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fds := range c.held {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	clear(c.held)
}
