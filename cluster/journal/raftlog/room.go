package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/cluster/journal"
)

// Room says when a disk is too full to write on.
type Room struct {
	Bytes   uint64 // below so many free bytes, or
	Percent uint64 // below this share of the disk, everything but deletions is refused
	Reserve uint64 // bytes that are held back, and given to the journal then
	// Stat returns the free and all bytes of the disk that dir is on; nil: statfs.
	Stat func(dir string) (free, total uint64, err error)
}

// DefaultRoom is 256 MB, 5 % and a reserve of 64 MB.
func DefaultRoom() Room {
	return Room{Bytes: 256 << 20, Percent: 5, Reserve: 64 << 20}
}

// room looks after the disk of dir.
type room struct {
	Room
	dir string
	log *slog.Logger

	mu   sync.Mutex
	held bool // the reserve file has its size
	low  bool // and that was logged
}

const reserveName = "reserve"

func newRoom(r Room, dir string, log *slog.Logger) *room {
	if r.Stat == nil {
		r.Stat = statfs
	}
	info, err := os.Stat(filepath.Join(dir, reserveName))
	return &room{Room: r, dir: dir, log: log, held: err == nil && uint64(info.Size()) == r.Reserve}
}

// check tells whether size bytes may be written; frees, that they go towards
// making room. What is free counts without the reserve, so that it can be
// taken again.
func (r *room) check(size int, frees bool) error {
	free, total, err := r.Stat(r.dir)
	if err != nil {
		return fmt.Errorf("%w: how much is free on %s cannot be told: %w", journal.ErrNoRoom, r.dir, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	need := max(r.Bytes, total/100*r.Percent)
	left := free
	if !r.held {
		left -= min(left, r.Reserve)
	}
	if left >= need {
		if r.low {
			r.log.Info("journal: the disk has room again, writes go on", "dir", r.dir)
		}
		r.low = false
		if !r.held {
			r.take()
		}
		return nil
	}
	if !r.low {
		r.log.Warn("journal: the disk is nearly full, only deletions are taken",
			"dir", r.dir, "free_bytes", free, "needed_bytes", need)
	}
	r.low = true
	r.giveBack()
	// A quarter of the reserve stays for raft's own records.
	if frees && free >= r.Reserve/4+uint64(size) {
		return nil
	}
	return fmt.Errorf("%w: %d MB are free on the disk of %s, and %d MB must be: remove something from that disk",
		journal.ErrNoRoom, free>>20, r.dir, need>>20)
}

// take makes the reserve file. Without room for it there is none.
func (r *room) take() {
	f, err := os.OpenFile(filepath.Join(r.dir, reserveName), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = errors.Join(allocate(f, int64(r.Reserve)), f.Close())
	}
	if err != nil {
		r.log.Warn("journal: no reserve could be taken", "error", err)
		r.giveBack()
		return
	}
	r.held = true
}

func (r *room) giveBack() {
	if err := os.Remove(filepath.Join(r.dir, reserveName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("journal: the reserve cannot be given back", "error", err)
		return
	}
	r.held = false
}

func statfs(dir string) (free, total uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
