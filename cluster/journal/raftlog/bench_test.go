package raftlog

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/suite"
)

const objectSize = 1000 // bytes, as a small pod's

// BenchmarkDisk is what the disk itself does: one write and fdatasync after
// the other into a file that has its room.
func BenchmarkDisk(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size = 64 << 20
	if err := allocate(f, size); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, objectSize)
	for i := int64(0); b.Loop(); i++ {
		if _, err := f.WriteAt(data, i*objectSize%(size-objectSize)); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "fsyncs/s")
}

// BenchmarkChanges is callers that each wait for their own write, behind one
// proposer that puts what is waiting into the next batch, as the registry does.
func BenchmarkChanges(b *testing.B) {
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			j, err := Open(Options{Dir: b.TempDir(), Decode: suite.Decode, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			epoch := suite.Led(b, j)
			type write struct {
				change journal.Change
				done   chan struct{}
			}
			waiting := make(chan write, callers)
			failed := make(chan error, 1)
			batches := 0
			go func() {
				defer close(failed)
				for first := range waiting {
					batch := []write{first}
					for len(batch) < 1000 && len(waiting) > 0 {
						batch = append(batch, <-waiting)
					}
					e := journal.Entry{Epoch: epoch, Base: j.Hub().Seq(), Time: time.Now().UnixNano()}
					for i, w := range batch {
						e.Changes = append(e.Changes, w.change)
						e.Commands = append(e.Commands, journal.Command{ID: fmt.Sprint(e.Base, ".", i)})
					}
					if err := j.Propose(context.Background(), e); err != nil {
						failed <- err
						return
					}
					batches++
					for _, w := range batch {
						close(w.done)
					}
				}
			}()
			value := make([]byte, objectSize)
			b.ResetTimer()
			next := make(chan int, callers)
			finished := make(chan struct{})
			for range callers {
				go func() {
					for n := range next {
						w := write{journal.Change{Key: suite.Pod(fmt.Sprint(n % 5000)), Value: value, Index: []string{"node=a"}}, make(chan struct{})}
						waiting <- w
						select {
						case <-w.done:
						case err := <-failed:
							b.Error(err)
						}
					}
					finished <- struct{}{}
				}()
			}
			for n := range b.N {
				next <- n
			}
			close(next)
			for range callers {
				<-finished
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
			close(waiting)
			if err := <-failed; err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(batches)/b.Elapsed().Seconds(), "batches/s")
		})
	}
}

// BenchmarkOpen is from nothing, and from 1,000 objects, to leadership.
func BenchmarkOpen(b *testing.B) {
	for _, objects := range []int{0, 1000} {
		b.Run(fmt.Sprint(objects), func(b *testing.B) {
			options := Options{Decode: suite.Decode, Log: slog.New(slog.DiscardHandler), Room: Room{Bytes: 1, Percent: 1, Reserve: 1}}
			prepared := b.TempDir()
			fill := func(dir string) {
				options.Dir = dir
				j, err := Open(options)
				if err != nil {
					b.Fatal(err)
				}
				epoch := suite.Led(b, j)
				for n := range objects {
					if err := suite.Propose(b, j, epoch, suite.Set(fmt.Sprint(n), "x")); err != nil {
						b.Fatal(err)
					}
				}
				if err := j.Close(); err != nil {
					b.Fatal(err)
				}
			}
			if objects > 0 {
				fill(prepared)
			}
			for b.Loop() {
				options.Dir = prepared
				if objects == 0 {
					options.Dir = b.TempDir()
				}
				j, err := Open(options)
				if err != nil {
					b.Fatal(err)
				}
				suite.Led(b, j)
				b.StopTimer()
				if err := j.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
