package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/troupe-sh/troupe/api"
)

// follower reads through a cursor as an actor does: when it is woken.
type follower struct {
	cursor *Cursor
	wakes  int
	seen   []uint64
	upTo   uint64
}

func follow(h *Hub, from uint64, resources ...string) *follower {
	f := &follower{}
	f.cursor = h.Subscribe(from, func() { f.wakes++ }, resources...)
	return f
}

func (f *follower) next(t *testing.T, max int) int {
	t.Helper()
	changes, upTo, err := f.cursor.Next(max)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		f.seen = append(f.seen, c.Seq)
	}
	f.upTo = upTo
	return len(changes)
}

func TestAWakeComesOnceAndAgainAfterReading(t *testing.T) {
	h := NewHub(NewState(decode))
	f := follow(h, 0, "pods")
	expect := func(step string, wakes int) {
		t.Helper()
		if f.wakes != wakes {
			t.Errorf("%s: %d wakes, want %d", step, f.wakes, wakes)
		}
	}
	expect("nothing there", 0)
	h.Publish(must(t, h.Snapshot(), set(api.Key{Resource: "nodes", Name: "n"}, "1")))
	expect("another resource", 0)
	h.Publish(must(t, h.Snapshot(), set(pod("a"), "1"), set(pod("b"), "1")))
	expect("first", 1)
	h.Publish(must(t, h.Snapshot(), set(pod("c"), "1")))
	expect("woken already", 1)
	f.next(t, 2)
	expect("read as much as asked for", 1)
	h.Publish(must(t, h.Snapshot(), set(pod("d"), "1")))
	expect("not through yet", 1)
	if n := f.next(t, 10); n != 2 {
		t.Errorf("read %d, want 2", n)
	}
	expect("through", 1)
	h.Publish(must(t, h.Snapshot(), set(pod("e"), "1")))
	expect("again", 2)
	f.next(t, 10)
	f.cursor.Close()
	h.Publish(must(t, h.Snapshot(), set(pod("f"), "1")))
	expect("closed", 2)
	if late := follow(h, 3, "pods"); late.wakes != 1 {
		t.Errorf("subscribed behind: %d wakes, want 1", late.wakes)
	}
	if len(h.parked) != 0 {
		t.Errorf("%d resources still have cursors", len(h.parked))
	}
}

func TestACursorOfSeveralResourcesReadsThemInOneOrder(t *testing.T) {
	h := NewHub(NewState(decode))
	node, secret := api.Key{Resource: "nodes", Name: "n"}, api.Key{Resource: "secrets", Namespace: "a", Name: "s"}
	two, all := follow(h, 0, "secrets", "nodes", "nodes"), follow(h, 0)
	h.Publish(must(t, h.Snapshot(), set(node, "1"), set(pod("a"), "1"), set(secret, "1"), set(node, "2"), set(pod("a"), "2")))
	for two.next(t, 1) == 1 {
	}
	all.next(t, 100)
	if got, want := fmt.Sprint(two.seen, two.upTo, two.wakes), "[1 3 4] 5 1"; got != want {
		t.Errorf("two: got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(all.seen, all.upTo, all.wakes), "[1 2 3 4 5] 5 1"; got != want {
		t.Errorf("all: got %s, want %s", got, want)
	}
}

func TestACursorFromTheFutureWaits(t *testing.T) {
	h := NewHub(NewState(decode))
	f := follow(h, 2, "pods")
	h.Publish(must(t, h.Snapshot(), set(pod("a"), "1"), set(pod("b"), "1")))
	if f.wakes != 0 || f.next(t, 10) != 0 || f.upTo != 2 {
		t.Errorf("%d wakes, read %v, up to %d", f.wakes, f.seen, f.upTo)
	}
	h.Publish(must(t, h.Snapshot(), set(pod("c"), "1")))
	if f.next(t, 10); f.wakes != 1 || fmt.Sprint(f.seen) != "[3]" {
		t.Errorf("%d wakes, read %v", f.wakes, f.seen)
	}
}

func TestTheSlowAreCutOffAndTheIdleAreNot(t *testing.T) {
	h := NewHub(must(t, NewState(decode), set(api.Key{Resource: "nodes", Name: "n"}, "1")))
	slow, idle := follow(h, 1, "pods"), follow(h, 1, "nodes")
	for range PastLimit/500 + 1 {
		var changes []Change
		for range 500 {
			changes = append(changes, set(pod("a"), "x"))
		}
		h.Publish(must(t, h.Snapshot(), changes...))
	}
	if _, _, err := slow.cursor.Next(10); !errors.Is(err, ErrGone) {
		t.Errorf("slow: got %v, want %v", err, ErrGone)
	}
	if idle.next(t, 10); idle.upTo != h.Seq() || idle.wakes != 0 {
		t.Errorf("idle: up to %d of %d, %d wakes", idle.upTo, h.Seq(), idle.wakes)
	}
}

// Readers of every kind beside one writer: each change once, in order.
func TestManyWatchersBesideAWriter(t *testing.T) {
	const watchers, batches = 100, 300
	h := NewHub(NewState(decode))
	resources := [][]string{{"pods"}, {"nodes"}, {"nodes", "pods"}, nil}
	var all sync.WaitGroup
	errs := make(chan error, watchers)
	for i := range watchers {
		woken := make(chan struct{}, 1)
		cursor := h.Subscribe(0, func() { woken <- struct{}{} }, resources[i%len(resources)]...)
		all.Go(func() {
			defer cursor.Close()
			seen, upTo := 0, uint64(0)
			want := map[int]int{0: batches, 1: batches, 2: 2 * batches, 3: 2 * batches}[i%len(resources)]
			for seen < want {
				<-woken
				for {
					changes, now, err := cursor.Next(1 + i%7)
					if err != nil {
						errs <- err
						return
					}
					for _, c := range changes {
						if c.Seq <= upTo {
							errs <- fmt.Errorf("change %d after %d", c.Seq, upTo)
							return
						}
						upTo = c.Seq
						if _, err := c.New.Object(); err != nil {
							errs <- err
							return
						}
					}
					upTo, seen = now, seen+len(changes)
					if len(changes) < 1+i%7 {
						break
					}
				}
			}
			if seen != want {
				errs <- fmt.Errorf("watcher %d saw %d changes, want %d", i, seen, want)
			}
		})
	}
	for i := range batches {
		h.Publish(must(t, h.Snapshot(), set(pod(fmt.Sprint(i%10)), "x"), set(api.Key{Resource: "nodes", Name: "n"}, "x")))
		if i%10 == 0 {
			runtime.Gosched()
		}
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

func TestObjectsAreDecodedOnceAndShared(t *testing.T) {
	calls := 0
	s := NewState(func(key api.Key, value []byte, seq uint64) (api.Object, error) {
		calls++
		return decode(key, value, seq)
	})
	s = must(t, s, set(pod("a"), "1"), set(pod("bad"), "broken"))
	r, _ := s.Get(pod("a"))
	first, err := r.Object()
	if err != nil {
		t.Fatal(err)
	}
	second, _ := r.Object()
	if first != second || calls != 1 || first.GetResourceVersion() != "1" {
		t.Errorf("%d decodings, version %s", calls, first.GetResourceVersion())
	}
	bad, _ := s.Get(pod("bad"))
	if _, err := bad.Object(); err == nil {
		t.Error("a broken value was decoded without an error")
	}
	for range warm + 1 {
		s = must(t, s, set(pod("a"), "2"))
	}
	if r.object != nil {
		t.Error("a state that was replaced long ago is still held decoded")
	}
}

func BenchmarkApply(b *testing.B) {
	s := NewState(decode)
	value := make([]byte, 2000)
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		next, err := s.Apply(1, Entry{
			Epoch: Epoch{1, 1}, Base: s.Seq(), Time: int64(i) * 1e6,
			Changes:  []Change{{Key: pod(fmt.Sprint(r.IntN(10000))), Value: value, Index: []string{"node=n1", "owner=u"}}},
			Commands: []Command{{ID: fmt.Sprint(i)}},
		})
		if err != nil {
			b.Fatal(err)
		}
		s = next
	}
}

func BenchmarkPublishTo1000(b *testing.B) {
	h := NewHub(NewState(decode))
	var cursors []*Cursor
	for range 1000 {
		cursors = append(cursors, h.Subscribe(0, func() {}, "pods"))
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Publish(must(b, h.Snapshot(), set(pod("a"), "1")))
		for _, c := range cursors {
			if changes, _, err := c.Next(100); err != nil || len(changes) != 1 {
				b.Fatal(changes, err)
			}
		}
	}
}

// A reader may come without having been woken: a message of an earlier wake
// that lay in its mailbox. The race detector looks on.
func TestAReaderMayComeUncalled(t *testing.T) {
	const changes = 500
	h := NewHub(NewState(decode))
	cursor := h.Subscribe(0, func() {}, "pods")
	defer cursor.Close()
	go func() {
		s := h.Snapshot()
		for range changes {
			s, _ = s.Apply(1, Entry{Epoch: Epoch{1, 1}, Base: s.Seq(), Changes: []Change{set(pod("a"), "1")}})
			h.Publish(s)
		}
	}()
	for last := uint64(0); last < changes; {
		found, _, err := cursor.Next(10)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range found {
			if last++; c.Seq != last {
				t.Fatalf("change %d came after %d", c.Seq, last-1)
			}
		}
		runtime.Gosched()
	}
}
