package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/troupe-sh/troupe/runtime/keeper"
	"golang.org/x/sys/unix"
)

// container is one whose output is followed.
type container struct {
	want  keeper.Log
	state string // its state files are named so, without their endings
	log   *slog.Logger
	turns turns

	mu      sync.Mutex // guards what follows, and the position in each stream's journal
	file    *logFile
	lost    int64 // bytes dropped since the last that could be written
	lostWhy error
	lookers int // who see what is printed as it comes

	streams []*stream
}

// stream is one of a container's FIFOs.
type stream struct {
	c       *container
	name    string
	fifo    *os.File
	raw     syscall.RawConn
	journal *journal
	done    chan struct{} // closed when run has returned

	mu    sync.Mutex
	stop  bool
	looks []chan<- struct{} // told when the FIFO's end is seen from now on
}

// turns bounds how many streams are worked on at once, and so the memory and
// threads that a flood can take; waiting streams are served in turn.
type turns chan *buffers

type buffers struct {
	raw  [fillSize + 2*maxLine]byte
	text []byte
}

func newTurns(n int) turns {
	t := make(turns, n)
	for range n {
		t <- &buffers{}
	}
	return t
}

// follow opens everything that want names and starts reading. What an earlier
// keeper left is gone on with.
func follow(want keeper.Log, state string, t turns, log *slog.Logger) (*container, error) {
	if want.MaxSize == 0 {
		want.MaxSize = keeper.DefaultMaxSize
	}
	if want.MaxFiles == 0 {
		want.MaxFiles = keeper.DefaultMaxFiles
	}
	c := &container{want: want, state: state, turns: t, log: log.With("container", want.ContainerID)}
	if err := c.open(); err != nil {
		c.close()
		return nil, fmt.Errorf("follow container %s: %w", want.ContainerID, err)
	}
	for _, s := range c.streams {
		go s.run()
	}
	return c, nil
}

func (c *container) open() error {
	var err error
	if c.file, err = openLog(c.want.Path, c.want.MaxSize, c.want.MaxFiles); err != nil {
		return err
	}
	size := c.file.size
	for i, path := range c.want.FIFOs() {
		s := &stream{c: c, name: [...]string{"stdout", "stderr"}[i], done: make(chan struct{})}
		if s.fifo, err = openFIFO(path); err != nil {
			return err
		}
		c.streams = append(c.streams, s)
		if s.raw, err = s.fifo.SyscallConn(); err != nil {
			return err
		}
		if s.journal, err = openJournal(c.state+"."+s.name, size, c.file.cut); err != nil {
			return err
		}
	}
	return nil
}

// openFIFO opens the reading end, and makes the FIFO first if it is not there.
func openFIFO(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make FIFO %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		f.Close()
		return nil, fmt.Errorf("%s is not a FIFO", path)
	}
	return f, nil
}

func (c *container) close() {
	for _, s := range c.streams {
		s.fifo.Close()
		if s.journal != nil {
			s.journal.close()
		}
	}
	if c.file != nil {
		c.file.close()
	}
}

// halt stops reading. Everything stays for the next keeper.
func (c *container) halt() {
	for _, s := range c.streams {
		s.mu.Lock()
		s.stop = true
		s.mu.Unlock()
		s.wake()
	}
	for _, s := range c.streams {
		<-s.done
	}
	c.close()
}

// drain returns when what the container wrote until its end is in the log: at
// once if nobody holds its FIFOs open for writing, else when they were closed
// or ctx ended.
func (c *container) drain(ctx context.Context) {
	var seen []<-chan struct{}
	for _, s := range c.streams {
		ch := make(chan struct{})
		s.mu.Lock()
		s.looks = append(s.looks, ch)
		s.mu.Unlock()
		s.wake()
		seen = append(seen, ch)
	}
	for i, ch := range seen {
		select {
		case <-ch:
		case <-c.streams[i].done:
		case <-ctx.Done():
		}
	}
}

// attach writes everything at once from now on, until detach.
func (c *container) attach() (detach func()) {
	c.mu.Lock()
	c.lookers++
	c.mu.Unlock()
	for _, s := range c.streams {
		s.wake() // for the beginning of a line that is there already
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lookers--
	}
}

// forget stops, writes what is left and removes the state. The log stays.
func (c *container) forget() error {
	for _, s := range c.streams {
		s.mu.Lock()
		s.stop = true
		s.mu.Unlock()
		s.wake()
	}
	for _, s := range c.streams {
		<-s.done
		s.work(atEnd)
	}
	c.close()
	return removeState(c.state)
}

func removeState(state string) error {
	var errs []error
	for _, end := range []string{".json", ".stdout", ".stderr"} {
		if err := os.Remove(state + end); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// save writes down what is followed, for the next keeper.
func (c *container) save() error {
	b, err := json.Marshal(c.want)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.state+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(c.state+".new", c.state+".json")
}

// wake makes run look at s again.
func (s *stream) wake() {
	// The one error is that the file is closed: then run has ended already.
	_ = s.fifo.SetReadDeadline(time.Unix(1, 0))
}

// run moves what comes until told to stop. Between two arrivals it sleeps in
// the poller.
func (s *stream) run() {
	defer close(s.done)
	s.work(inLines) // what the last keeper left
	for {
		var looks []chan<- struct{}
		s.mu.Lock()
		stop := s.stop
		s.looks, looks = nil, s.looks
		s.mu.Unlock()
		if stop {
			return
		}
		s.await(looks)
		s.work(inLines)
	}
}

// await waits for data and moves it into the journal, or until it is woken.
// looks are closed when the FIFO's end is seen, else put back.
func (s *stream) await(looks []chan<- struct{}) {
	err := s.raw.Read(func(fd uintptr) bool {
		for {
			n, err := s.journal.fill(int(fd))
			switch {
			case n > 0:
				return true
			case err == unix.EAGAIN:
				s.idle()
				return false
			case err != nil:
				if s.discard(int(fd), err) {
					continue
				}
				return false
			}
			// Nothing in it and nobody writes: not yet, or no more.
			s.idle()
			s.work(atEnd)
			for _, ch := range looks {
				close(ch)
			}
			looks = nil
			return false
		}
	})
	if len(looks) > 0 {
		s.mu.Lock()
		s.looks = append(s.looks, looks...)
		s.mu.Unlock()
	}
	if err == nil {
		return
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		// The poller refuses what it took before: the keeper cannot do its work.
		panic(fmt.Errorf("wait for %s of container %s: %w", s.name, s.c.want.ContainerID, err))
	}
	_ = s.fifo.SetReadDeadline(time.Time{}) // cannot fail: run alone closes nothing
}

// work writes what is in the journal to the log.
func (s *stream) work(m manner) {
	if s.journal.pending() == 0 {
		return
	}
	b := <-s.c.turns
	defer func() { s.c.turns <- b }()
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.c.lookers > 0 {
		m = live
	}
	for {
		data, err := s.journal.read(b.raw[:])
		if err != nil {
			s.c.lose(s.journal.pending(), err)
			s.journal.head.pos = s.journal.end
			return
		}
		now := time.Now()
		text, used := appendEntries(b.text[:0], now, s.name, data, m)
		b.text = text
		if used == 0 {
			break
		}
		s.c.write(s, now, text, int64(used))
	}
	if err := s.journal.compact(compactAt); err != nil {
		s.c.log.Warn("journal not compacted", "error", err)
	}
}

// idle keeps an idle stream small.
func (s *stream) idle() {
	if s.journal.end < compactNow {
		return
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.journal.compact(compactNow); err != nil {
		s.c.log.Warn("journal not compacted", "error", err)
	}
}

// write puts text, which holds the next used bytes of s, into the log. What
// cannot be written is dropped, counted and said in the log later: a container
// must not stand still because a disk is full. c.mu is held.
func (c *container) write(s *stream, now time.Time, text []byte, used int64) {
	if c.lost > 0 {
		notice, _ := appendEntries(nil, now, "stderr",
			fmt.Appendf(nil, "troupe-keeper: %d bytes of output lost: %v\n", c.lost, c.lostWhy), atEnd)
		text = append(notice, text...)
	}
	err := func() error {
		if c.file.full(len(text)) {
			for _, s := range c.streams {
				if err := s.journal.settle(); err != nil {
					return err
				}
			}
			if err := c.file.rotate(now); err != nil {
				c.log.Warn("log not rotated", "error", err)
			}
		}
		if err := s.journal.intend(c.file.size, int64(len(text)), used); err != nil {
			return err
		}
		return c.file.write(text)
	}()
	if err == nil {
		s.journal.wrote()
		c.lost = 0
		return
	}
	c.lose(used, err)
	if err := s.journal.commit(s.journal.head.pos + used); err != nil {
		c.log.Warn("journal not written", "error", err)
	}
}

// lose counts output that could be kept nowhere. c.mu is held.
func (c *container) lose(n int64, why error) {
	if c.lost == 0 {
		c.log.Warn("output lost", "error", why)
	}
	c.lost += n
	c.lostWhy = why
}

// discard empties a FIFO that the journal has no room for, and says whether
// there was something.
func (s *stream) discard(fifo int, why error) bool {
	var buf [4096]byte
	n, err := unix.Read(fifo, buf[:])
	if err != nil || n <= 0 {
		return err == unix.EINTR
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.lose(int64(n), why)
	return true
}
