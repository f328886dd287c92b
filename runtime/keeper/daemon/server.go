// Package daemon is the keeper: it moves what containers print from their
// FIFOs to their log files. See package keeper for who starts it and how it is
// spoken to.
//
// Killed at any moment, it loses nothing and writes nothing twice: journal.go
// says how. The bytes in the FIFOs are kept by those who hold them open,
// containerd's shims and the agent.
package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/troupe-sh/troupe/runtime/keeper"
	"golang.org/x/sys/unix"
)

// drainTimeout is how long the end of a container's output is waited for. Its
// shim closes the FIFO when the last process that holds it has ended.
const drainTimeout = 5 * time.Second

// lockTimeout is how long a keeper waits for its predecessor to go.
const lockTimeout = 5 * time.Second

// Config of a keeper.
type Config struct {
	RunDir string
	Log    *slog.Logger
	Ready  func() // called when requests are taken
}

type server struct {
	dir   string // state files
	log   *slog.Logger
	turns turns
	guard *guard
	stop  context.CancelFunc

	mu         sync.Mutex
	containers map[string]*container
}

// Run keeps logs until ctx ends or a client says stop. What it followed is
// written down in RunDir and gone on with by the next keeper.
func Run(ctx context.Context, c Config) error {
	dir := filepath.Join(c.RunDir, "keeper")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := &server{
		dir: dir, log: c.Log, turns: newTurns(2 * runtime.GOMAXPROCS(0)), guard: newGuard(c.Log), stop: stop,
		containers: map[string]*container{},
	}
	if err := s.resume(); err != nil {
		return err
	}
	defer s.halt()

	socket := keeper.Socket(c.RunDir)
	if len(socket) > 107 {
		return fmt.Errorf("socket path %s has %d bytes and the kernel takes 107: choose a shorter run directory", socket, len(socket))
	}
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", socket)
	unix.Umask(old)
	if err != nil {
		return err
	}
	defer l.Close() // and with it the socket's name, before the lock goes
	context.AfterFunc(ctx, func() { l.Close() })
	c.Log.Info("keeper runs", "version", keeper.Version, "containers", len(s.containers))
	c.Ready()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go s.serve(ctx, conn)
	}
}

// lockDir makes sure that one keeper alone reads the FIFOs.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() {
		err := unix.EINTR
		for err == unix.EINTR {
			err, _ = unix.Flock(int(f.Fd()), unix.LOCK_EX).(unix.Errno)
		}
		if err == 0 {
			locked <- nil
			return
		}
		locked <- err
	}()
	select {
	case err = <-locked:
	case <-time.After(lockTimeout):
		err = errors.New("another keeper runs there")
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// resume goes on with what an earlier keeper followed.
func (s *server) resume() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	for _, e := range entries {
		name := e.Name()
		if id, ok := strings.CutSuffix(name, ".json"); ok {
			if err := s.resumeOne(id); err != nil {
				s.log.Error("container not followed any more", "container", id, "error", err)
			}
			continue
		}
		id := strings.TrimSuffix(name, filepath.Ext(name))
		if name != "lock" && !has(id+".json") { // forgotten halfway
			if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *server) resumeOne(id string) error {
	var want keeper.Log
	b, err := os.ReadFile(filepath.Join(s.dir, id+".json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &want); err != nil {
		return fmt.Errorf("read %s.json: %w", id, err)
	}
	if want.ContainerID != id {
		return fmt.Errorf("%s.json is of container %q", id, want.ContainerID)
	}
	state := filepath.Join(s.dir, id)
	if _, err := os.Stat(want.Stdout); os.IsNotExist(err) {
		return errors.Join(fmt.Errorf("its FIFO %s was removed", want.Stdout), removeState(state))
	}
	c, err := follow(want, state, s.turns, s.log)
	if err != nil {
		return err
	}
	s.containers[id] = c
	return nil
}

func (s *server) halt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.containers {
		c.halt()
	}
}

// serve answers the requests of one connection, one after the other.
func (s *server) serve(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	detach := func() {}
	defer func() { detach() }()
	in := bufio.NewScanner(conn)
	for in.Scan() {
		var q keeper.Request
		a := keeper.Response{Version: keeper.Version}
		err := json.Unmarshal(in.Bytes(), &q)
		switch {
		case err != nil:
		case q.Op == keeper.OpAttach:
			detach()
			detach, err = s.attach(q.ContainerID)
		default:
			a.Logs, err = s.answer(ctx, q)
		}
		if err != nil {
			a.Error = err.Error()
		}
		b, err := json.Marshal(a)
		if err != nil {
			panic(err) // plain strings and numbers
		}
		if _, err := conn.Write(append(b, '\n')); err != nil {
			return
		}
		if q.Op == keeper.OpStop {
			s.stop()
			return
		}
	}
}

func (s *server) answer(ctx context.Context, q keeper.Request) ([]keeper.Log, error) {
	switch q.Op {
	case keeper.OpPing, keeper.OpStop:
		return nil, nil
	case keeper.OpFollow:
		if q.Log == nil {
			return nil, errors.New("follow: no log given")
		}
		return nil, s.follow(*q.Log)
	case keeper.OpDrain, keeper.OpForget:
		s.mu.Lock()
		c := s.containers[q.ContainerID]
		s.mu.Unlock()
		if c == nil {
			return nil, nil
		}
		ctx, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		c.drain(ctx)
		if q.Op == keeper.OpDrain {
			return nil, nil
		}
		return nil, s.forget(c)
	case keeper.OpGuard:
		if q.Agent == nil {
			return nil, errors.New("guard: no agent given")
		}
		return nil, s.guard.watch(ctx, *q.Agent)
	case keeper.OpList:
		s.mu.Lock()
		defer s.mu.Unlock()
		var logs []keeper.Log
		for _, id := range slices.Sorted(maps.Keys(s.containers)) {
			logs = append(logs, s.containers[id].want)
		}
		return logs, nil
	}
	return nil, fmt.Errorf("operation %q is not known to this keeper", q.Op)
}

func (s *server) attach(id string) (detach func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil {
		return c.attach(), nil
	}
	return func() {}, fmt.Errorf("container %s is not followed", id)
}

func (s *server) follow(want keeper.Log) error {
	if err := want.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[want.ContainerID]; c != nil {
		if c.want.Path == want.Path && slices.Equal(c.want.FIFOs(), want.FIFOs()) {
			return nil
		}
		return fmt.Errorf("container %s is followed already, from %v to %s", want.ContainerID, c.want.FIFOs(), c.want.Path)
	}
	c, err := follow(want, filepath.Join(s.dir, want.ContainerID), s.turns, s.log)
	if err != nil {
		return err
	}
	if err := c.save(); err != nil {
		c.halt()
		return err
	}
	s.containers[want.ContainerID] = c
	return nil
}

// forget ends following c, whose output was drained.
func (s *server) forget(c *container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[c.want.ContainerID] != c {
		return nil // forgotten by another request meanwhile
	}
	delete(s.containers, c.want.ContainerID)
	return c.forget()
}
