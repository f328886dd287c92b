package raftlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/suite"
)

func TestRoom(t *testing.T) {
	const mb = 1 << 20
	var free uint64
	total := uint64(4096 * mb)
	r := newRoom(Room{Bytes: 256 * mb, Percent: 5, Reserve: 4 * mb, Stat: func(string) (uint64, uint64, error) {
		return free, total, nil
	}}, t.TempDir(), testLog(t))
	reserved := func() bool {
		info, err := os.Stat(filepath.Join(r.dir, reserveName))
		return err == nil && info.Size() == 4*mb
	}
	for _, step := range []struct {
		what        string
		free, total uint64
		sets, frees bool
		reserved    bool
	}{
		{"plenty", 1000 * mb, 4096 * mb, true, true, true},
		{"just enough", 256 * mb, 4096 * mb, true, true, true},
		{"too little", 256*mb - 1, 4096 * mb, false, true, false},
		{"what was given back does not count", 259 * mb, 4096 * mb, false, true, false},
		{"next to nothing", mb / 2, 4096 * mb, false, false, false},
		{"room again", 260 * mb, 4096 * mb, true, true, true},
		{"below its share of a large disk", 300 * mb, 8192 * mb, false, true, false},
		{"above it", 500 * mb, 8192 * mb, true, true, true},
	} {
		free, total = step.free, step.total
		sets, frees := r.check(100, false), r.check(100, true)
		if sets == nil != step.sets || frees == nil != step.frees || reserved() != step.reserved {
			t.Errorf("%s: sets %v, deletes %v, reserve %t", step.what, sets, frees, reserved())
		}
		for _, err := range []error{sets, frees} {
			if err != nil && !errors.Is(err, journal.ErrNoRoom) {
				t.Errorf("%s: %v", step.what, err)
			}
		}
	}
}

// A real disk that fills up: writes are refused, leadership stays, nothing is
// lost, also with the very last byte taken.
func TestADiskThatFillsUp(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=32m"); err != nil {
		t.Fatalf("mount a tmpfs: %v (this test needs root)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	options := Options{
		Dir: filepath.Join(mount, "journal"), Decode: suite.Decode, Log: testLog(t),
		SegmentSize: 256 << 10, SnapshotBytes: 1 << 20,
		Room: Room{Bytes: 6 << 20, Percent: 5, Reserve: 4 << 20},
	}
	j, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	epoch := suite.Led(t, j)
	value := make([]byte, 10_000)
	written := 0
	set := func(n int) error {
		return suite.Propose(t, j, epoch, journal.Change{Key: suite.Pod(fmt.Sprint(n)), Value: value})
	}
	for ; written < 10; written++ {
		if err := set(written); err != nil {
			t.Fatal(err)
		}
	}
	big := filepath.Join(mount, "big")
	fill := func() {
		t.Helper()
		f, err := os.OpenFile(big, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for block := make([]byte, 4096); ; {
			if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}

	fill()
	if err := set(written); !errors.Is(err, journal.ErrNoRoom) {
		t.Fatalf("full: got %v, want %v", err, journal.ErrNoRoom)
	}
	// The reserve is given back: deletions go on.
	if err := suite.Propose(t, j, epoch, suite.Delete("0")); err != nil {
		t.Fatalf("full: delete: %v", err)
	}
	fill() // somebody takes that as well
	for range 100 {
		for _, change := range []journal.Change{suite.Set("x", "1"), suite.Delete("1")} {
			if err := suite.Propose(t, j, epoch, change); !errors.Is(err, journal.ErrNoRoom) {
				t.Fatalf("full to the last byte: got %v, want %v", err, journal.ErrNoRoom)
			}
		}
	}
	if err := j.VerifyLeader(t.Context()); err != nil {
		t.Fatalf("leadership: %v", err)
	}
	for range 200 { // raft's own records need no room: they have theirs already
		if err := j.Barrier(t.Context()); err != nil {
			t.Fatalf("barrier: %v", err)
		}
	}
	// A restart on the full disk.
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(options); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	epoch = suite.Led(t, j)
	if n := len(j.Hub().List("pods", "")); n != written-1 {
		t.Errorf("%d objects, want %d", n, written-1)
	}

	if err := os.Remove(big); err != nil {
		t.Fatal(err)
	}
	for end := written + 200; written < end; written++ {
		if err := set(written); err != nil {
			t.Fatalf("with room again: %v", err)
		}
	}
	if info, err := os.Stat(filepath.Join(options.Dir, reserveName)); err != nil || info.Size() != 4<<20 {
		t.Errorf("the reserve was not taken again: %v", err)
	}
	if n := len(j.Hub().List("pods", "")); n != written-1 {
		t.Errorf("%d objects, want %d", n, written-1)
	}
}
