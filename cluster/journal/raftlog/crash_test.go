package raftlog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/suite"
)

const crashDir = "RAFTLOG_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := writeUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// small makes segments and snapshots turn over many times in a test.
func small(dir string, log *slog.Logger) Options {
	return Options{
		Dir: dir, Decode: suite.Decode, Log: log, SegmentSize: 64 << 10, SnapshotBytes: 100 << 10,
		Room: Room{Bytes: 1 << 20, Percent: 1, Reserve: 1 << 20},
	}
}

// writeUntilKilled is the child: it writes a new object in each entry, with a
// command of the same name, and says which ones were acknowledged.
func writeUntilKilled(dir string) error {
	j, err := Open(small(dir, slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	led := make(chan journal.Epoch, 1)
	j.Leadership(func(l journal.Leadership) {
		if l.Leader {
			led <- l.Epoch
		}
	})
	epoch := <-led
	random := rand.New(rand.NewPCG(uint64(os.Getpid()), 0))
	for {
		name := strconv.FormatUint(j.Hub().Seq(), 10)
		filler := bytes.Repeat([]byte("x"), random.IntN(3000))
		err := j.Propose(context.Background(), journal.Entry{
			Epoch: epoch, Base: j.Hub().Seq(), Time: time.Now().UnixNano(),
			Changes: []journal.Change{
				{Key: suite.Pod(name), Value: []byte(name)},
				{Key: suite.Pod("filler"), Value: filler},
			},
			Commands: []journal.Command{{ID: name, Result: []byte(name)}},
		})
		if err != nil {
			return err
		}
		fmt.Println(name)
	}
}

// A process is killed 200 times while it writes; every write that it said was
// durable is there, once.
func TestNothingAcknowledgedIsLostInACrash(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 1))
	acknowledged := 0
	last := -1
	for kill := range 200 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), crashDir+"="+dir)
		var stderr bytes.Buffer
		child.Stderr = &stderr
		stdout, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// Most are killed while they write, some while they open.
		writes := random.IntN(40) - 5
		lines := bufio.NewScanner(stdout)
		read := func() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatal(err)
			}
			if n <= last {
				t.Fatalf("kill %d: %d was written after %d", kill, n, last)
			}
			last = n
			acknowledged++
		}
		for i := 0; i < writes && lines.Scan(); i++ {
			read()
		}
		wait := time.NewTimer(time.Duration(random.IntN(3000)) * time.Microsecond)
		<-wait.C
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it still said before it died
			read()
		}
		if err := child.Wait(); err == nil || stderr.Len() > 0 {
			t.Fatalf("kill %d: %v: %s", kill, err, &stderr)
		}
		if kill%20 != 19 {
			continue
		}
		j, err := Open(small(dir, testLog(t)))
		if err != nil {
			t.Fatal(err)
		}
		suite.Led(t, j)
		found := 0
		for _, r := range j.Hub().List("pods", "") {
			if r.Key.Name == "filler" {
				continue
			}
			found++
			if n, err := strconv.ParseUint(r.Key.Name, 10, 64); err != nil || r.Seq != n+1 {
				t.Errorf("%s was written as change %d", r.Key, r.Seq)
			}
			if _, ok := j.Hub().Command(r.Key.Name); !ok {
				t.Errorf("%s was written without its command", r.Key)
			}
		}
		// An entry is two changes, so that a gap would show in their number.
		if seq := j.Hub().Seq(); int(seq) != 2*found || found < acknowledged || last >= 0 && int(seq) < last+2 {
			t.Fatalf("kill %d: %d objects after %d changes, %d acknowledged, the last one %d", kill, found, seq, acknowledged, last)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	snapshots, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil || len(snapshots) == 0 {
		t.Errorf("no snapshot was taken: %v", err)
	}
	t.Logf("%d writes acknowledged", acknowledged)
}

// written makes a journal of n entries and returns its newest log file and
// where the records in it end.
func written(t *testing.T, dir string, n int) (file string, ends []int64) {
	t.Helper()
	j, err := Open(small(dir, testLog(t)))
	if err != nil {
		t.Fatal(err)
	}
	epoch := suite.Led(t, j)
	for i := range n {
		if err := suite.Propose(t, j, epoch, suite.Set(fmt.Sprint(i), strings.Repeat("x", 100))); err != nil {
			t.Fatal(err)
		}
	}
	tail := j.disk.segments[len(j.disk.segments)-1]
	ends = append(slices.Clone(tail.offsets[1:]), tail.end)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return tail.f.Name(), ends
}

func TestATornLastRecordIsDropped(t *testing.T) {
	for name, tear := range map[string]func(f *os.File, start, end int64) error{
		"cut in the middle": func(f *os.File, start, end int64) error { return f.Truncate((start + end) / 2) },
		"cut in its head":   func(f *os.File, start, _ int64) error { return f.Truncate(start + 3) },
		"only half of it arrived": func(f *os.File, start, end int64) error {
			_, err := f.WriteAt(make([]byte, (end-start)/2), (start+end)/2)
			return err
		},
		"its head did not arrive": func(f *os.File, start, _ int64) error {
			_, err := f.WriteAt(make([]byte, 12), start)
			return err
		},
		"garbage": func(f *os.File, start, end int64) error {
			data := make([]byte, end-start+500)
			for i := range data {
				data[i] = byte(rand.IntN(256))
			}
			_, err := f.WriteAt(data, start)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, ends := written(t, dir, 10)
			f, err := os.OpenFile(file, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			// The last record is taken for one whose write was under way.
			if err := errors.Join(tear(f, ends[len(ends)-2], ends[len(ends)-1]), f.Close()); err != nil {
				t.Fatal(err)
			}
			for range 2 { // what was mended stays so
				j, err := Open(small(dir, testLog(t)))
				if err != nil {
					t.Fatal(err)
				}
				epoch := suite.Led(t, j)
				for i := range 9 {
					if _, ok := j.Hub().Get(suite.Pod(fmt.Sprint(i))); !ok {
						t.Errorf("%d is lost", i)
					}
				}
				if err := suite.Propose(t, j, epoch, suite.Set("more", "x")); err != nil {
					t.Error(err)
				}
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestADamagedOlderRecordIsNoTornOne(t *testing.T) {
	dir := t.TempDir()
	file, ends := written(t, dir, 10)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("damage"), ends[3]+50)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(small(dir, testLog(t))); !errors.Is(err, errDamaged) {
		t.Fatalf("got %v, want %v", err, errDamaged)
	}
}

func TestATornVoteIsTheOneBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ballot")
	for turn := range uint64(6) {
		b, err := openBallot(path, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		if term, err := b.GetUint64([]byte(termKey)); err != nil || term != turn {
			t.Fatalf("term %d, %v, want %d", term, err, turn)
		}
		if err := errors.Join(b.SetUint64([]byte(termKey), turn+1), b.Set([]byte("vote"), []byte("a")), b.Close()); err != nil {
			t.Fatal(err)
		}
		// The write of the vote tears: its slot is lost, the term's stays.
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte("torn"), int64(b.turn%2)*slotSize+20)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 2*slotSize), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openBallot(path, testLog(t)); !errors.Is(err, errDamaged) {
		t.Errorf("both slots damaged: got %v", err)
	}
}

// A bootstrap that was cut short is done again.
func TestACrashWhileTheJournalIsMade(t *testing.T) {
	dir := t.TempDir()
	b, err := openBallot(filepath.Join(dir, "ballot"), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.SetUint64([]byte(termKey), 1), b.Close()); err != nil {
		t.Fatal(err)
	}
	j, err := Open(small(dir, testLog(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := suite.Propose(t, j, suite.Led(t, j), suite.Set("a", "1")); err != nil {
		t.Fatal(err)
	}
}

// The log beside a list in memory: random writes, failures, deletions at both
// ends, and restarts.
func TestTheLogIsAList(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		dir := t.TempDir()
		fails := false
		reopen := func() *diskLog {
			l, err := openDiskLog(dir, 8<<10, testLog(t))
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			l.fault = func() error {
				if fails {
					return io.ErrShortWrite
				}
				return nil
			}
			return l
		}
		l := reopen()
		var want []*raft.Log
		next := uint64(1)
		for range 300 {
			switch r.IntN(12) {
			case 0:
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = reopen()
				// A start that was deleted may be back as far as its file goes.
				if first, _ := l.FirstIndex(); len(want) > 0 && first < want[0].Index {
					if err := l.DeleteRange(first, want[0].Index-1); err != nil {
						t.Fatal(err)
					}
				}
			case 1:
				if n := r.IntN(len(want) + 1); n > 0 {
					if err := l.DeleteRange(want[0].Index, want[n-1].Index); err != nil {
						t.Fatal(err)
					}
					if want = want[n:]; len(want) == 0 && r.IntN(2) == 0 {
						next += 100 // a snapshot took the log's place
					}
				}
			case 2:
				if n := r.IntN(len(want) + 1); n < len(want) && n > 0 {
					next = want[n].Index
					if err := l.DeleteRange(next, want[len(want)-1].Index); err != nil {
						t.Fatal(err)
					}
					want = want[:n]
				}
			default:
				var batch []*raft.Log
				for i := range 1 + r.Uint64N(4) {
					data := make([]byte, r.IntN(1500))
					for i := range data {
						data[i] = byte(r.Uint32())
					}
					batch = append(batch, &raft.Log{
						Index: next + i, Term: 1 + r.Uint64N(9), Type: raft.LogType(r.IntN(6)), Data: data,
						Extensions: []byte(fmt.Sprint(i)), AppendedAt: time.Unix(0, r.Int64()),
					})
				}
				fails = r.IntN(5) == 0
				err := l.StoreLogs(batch)
				if fails != (err != nil) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if !fails {
					want = append(want, batch...)
					next += uint64(len(batch))
				}
			}
			first, _ := l.FirstIndex()
			last, _ := l.LastIndex()
			if len(want) == 0 {
				if first != 0 || last != 0 {
					t.Fatalf("seed %d: from %d to %d, want nothing", seed, first, last)
				}
				continue
			}
			if first != want[0].Index || last != want[len(want)-1].Index {
				t.Fatalf("seed %d: from %d to %d, want %d to %d", seed, first, last, want[0].Index, want[len(want)-1].Index)
			}
			for _, w := range want {
				var got raft.Log
				if err := l.GetLog(w.Index, &got); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if got.Index != w.Index || got.Term != w.Term || got.Type != w.Type || !bytes.Equal(got.Data, w.Data) ||
					!bytes.Equal(got.Extensions, w.Extensions) || !got.AppendedAt.Equal(w.AppendedAt) {
					t.Fatalf("seed %d: log %d is another", seed, w.Index)
				}
			}
			for _, index := range []uint64{0, first - 1, last + 1} {
				if err := l.GetLog(index, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
					t.Fatalf("seed %d: log %d: %v", seed, index, err)
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzMend(f *testing.F) {
	var data []byte
	for i := range uint64(3) {
		data = appendRecord(data, i+1, &raft.Log{Index: i + 1, Term: 1, Data: []byte("data"), AppendedAt: time.Unix(1, 0)})
	}
	f.Add(data)
	f.Add(data[:len(data)-3])
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d.log", 1)), data, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			l, err := openDiskLog(dir, 4<<10, slog.New(slog.DiscardHandler))
			if err != nil {
				return
			}
			first, _ := l.FirstIndex()
			last, _ := l.LastIndex()
			for i := first; i != 0 && i <= last; i++ {
				var log raft.Log
				if err := l.GetLog(i, &log); err != nil && !errors.Is(err, errDamaged) {
					t.Fatal(err)
				}
			}
			if err := l.StoreLog(&raft.Log{Index: last + 1, Term: 1, AppendedAt: time.Unix(1, 0)}); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
