package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/suite"
)

// disk is what a test does to the disk under a journal.
type disk struct {
	full  atomic.Bool
	fails atomic.Int64 // so many writes of the log fail
	lost  atomic.Bool  // every write fails
}

func (d *disk) stat(string) (free, total uint64, err error) {
	if d.full.Load() {
		return 100 << 20, 100 << 30, nil
	}
	return 50 << 30, 100 << 30, nil
}

func (d *disk) prepare(j *Journal) {
	j.disk.fault = func() error {
		if d.lost.Load() || d.fails.Add(-1) >= 0 {
			return unix.ENOSPC
		}
		d.fails.Store(0)
		return nil
	}
	j.ballot.fault = func() error {
		if d.lost.Load() {
			return unix.ENOSPC
		}
		return nil
	}
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func openTest(t testing.TB, dir string, d *disk) *Journal {
	t.Helper()
	r := DefaultRoom()
	r.Reserve = 1 << 20 // it is on the real disk
	r.Stat = d.stat
	j, err := open(Options{Dir: dir, Decode: suite.Decode, Log: testLog(t), Room: r, SegmentSize: 256 << 10}, d.prepare)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestSuite(t *testing.T) {
	suite.Run(t, func(t *testing.T) *suite.Subject {
		dir, d := t.TempDir(), &disk{}
		j := openTest(t, dir, d)
		return &suite.Subject{
			Journal:  j,
			LoseNext: func() { d.fails.Store(1) },
			Elect:    func() {},
			SetFull:  d.full.Store,
			Reopen: func() journal.Journal {
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				j = openTest(t, dir, d)
				return j
			},
		}
	})
}

// Neither the log nor the term can be written: the process lives, shows what
// it knows, and leads again when the disk is back.
func TestADiskThatFailsAltogether(t *testing.T) {
	d := &disk{}
	j := openTest(t, t.TempDir(), d)
	defer j.Close()
	epoch := suite.Led(t, j)
	if err := suite.Propose(t, j, epoch, suite.Set("a", "1")); err != nil {
		t.Fatal(err)
	}
	lost := make(chan struct{}, 1)
	back := make(chan journal.Epoch, 1)
	j.Leadership(func(l journal.Leadership) {
		if !l.Leader {
			lost <- struct{}{}
		} else if l.Epoch.Term > epoch.Term {
			back <- l.Epoch
		}
	})
	tried := make(chan struct{}, 100)
	write := j.ballot.fault
	j.ballot.fault = func() error {
		select {
		case tried <- struct{}{}:
		default:
		}
		return write()
	}
	d.lost.Store(true)
	if err := suite.Propose(t, j, epoch, suite.Set("b", "1")); !errors.Is(err, journal.ErrUnknownOutcome) {
		t.Fatalf("got %v, want %v", err, journal.ErrUnknownOutcome)
	}
	await(t, lost, "loss of leadership")
	for range 3 {
		await(t, tried, "an attempt to write the term")
	}
	if _, ok := j.Hub().Get(suite.Pod("a")); !ok {
		t.Error("what was known does not show")
	}
	d.lost.Store(false)
	epoch = await(t, back, "leadership")
	if err := suite.Propose(t, j, epoch, suite.Set("c", "1")); err != nil {
		t.Fatal(err)
	}
}

func TestClosingWhileTheTermCannotBeWritten(t *testing.T) {
	d := &disk{}
	dir := t.TempDir()
	j := openTest(t, dir, d)
	epoch := suite.Led(t, j)
	if err := suite.Propose(t, j, epoch, suite.Set("a", "1")); err != nil {
		t.Fatal(err)
	}
	lost := make(chan struct{}, 1)
	j.Leadership(func(l journal.Leadership) {
		if !l.Leader {
			lost <- struct{}{}
		}
	})
	d.lost.Store(true)
	if err := suite.Propose(t, j, epoch, suite.Set("b", "1")); !errors.Is(err, journal.ErrUnknownOutcome) {
		t.Fatalf("got %v, want %v", err, journal.ErrUnknownOutcome)
	}
	await(t, lost, "loss of leadership")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	d.lost.Store(false)
	j = openTest(t, dir, d)
	defer j.Close()
	suite.Led(t, j)
	if _, ok := j.Hub().Get(suite.Pod("a")); !ok {
		t.Error("an acknowledged write is lost")
	}
}

func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func TestADirectoryHasOneUser(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir, &disk{})
	defer j.Close()
	if _, err := Open(Options{Dir: dir, Decode: suite.Decode, Log: testLog(t)}); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatalf("got %v", err)
	}
}

// A read that VerifyLeader lets pass sees all that was acknowledged, also in
// the moments after a start.
func TestAReadAfterAStartSeesEverything(t *testing.T) {
	dir := t.TempDir()
	for round := range 5 {
		j := openTest(t, dir, &disk{})
		reigns := make(chan journal.Leadership, 8)
		j.Leadership(func(l journal.Leadership) { reigns <- l })
		reign := await(t, reigns, "leadership")
		for !reign.Leader {
			reign = await(t, reigns, "leadership")
		}
		for i := range 300 {
			err := j.Propose(t.Context(), journal.Entry{
				Epoch: reign.Epoch, Base: j.Hub().Seq(), Time: 1,
				Changes: []journal.Change{{Key: api.Key{Resource: "configmaps", Namespace: "default", Name: fmt.Sprint(round, "-", i)}, Value: []byte("v")}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		last := j.Hub().Seq()
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j = openTest(t, dir, &disk{})
		for err := errors.New("not asked yet"); err != nil; {
			if err = j.VerifyLeader(t.Context()); err != nil && !errors.Is(err, journal.ErrNotLeader) {
				t.Fatal(err)
			}
		}
		if now := j.Hub().Seq(); now < last {
			t.Errorf("a read sees %d of %d changes", now, last)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClosedAsSoonAsOpened(t *testing.T) {
	dir := t.TempDir()
	for range 30 {
		if err := openTest(t, dir, &disk{}).Close(); err != nil {
			t.Fatal(err)
		}
	}
}
