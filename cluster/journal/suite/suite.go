// Package suite is what every adapter of the journal must do.
package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// Subject is a journal under test, and what the suite does to it.
type Subject struct {
	Journal journal.Journal
	// LoseNext makes the next proposal lose leadership while it is in flight.
	LoseNext func()
	// Elect lets this member lead again, if it does not by itself.
	Elect func()
	// SetFull fills the disk, or makes room again.
	SetFull func(full bool)
	// Reopen is a restart of the member: what the journal is then.
	Reopen func() journal.Journal
}

// Decode is a decoder for the suite's objects: the value becomes an annotation.
func Decode(key api.Key, value []byte, seq uint64) (api.Object, error) {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: key.Namespace, Name: key.Name, ResourceVersion: fmt.Sprint(seq),
		Annotations: map[string]string{"value": string(value)},
	}}, nil
}

// Pod is the key of one of the suite's objects.
func Pod(name string) api.Key { return api.Key{Resource: "pods", Namespace: "default", Name: name} }

// Set is a change that sets an object.
func Set(name, value string) journal.Change {
	return journal.Change{Key: Pod(name), Value: []byte(value), Index: []string{"value=" + value}}
}

// Delete is a change that deletes an object.
func Delete(name string) journal.Change { return journal.Change{Key: Pod(name)} }

// Led waits until j leads and returns its epoch.
func Led(t testing.TB, j journal.Journal) journal.Epoch {
	t.Helper()
	led := make(chan journal.Epoch, 1)
	j.Leadership(func(l journal.Leadership) {
		if l.Leader {
			select {
			case led <- l.Epoch:
			default:
			}
		}
	})
	select {
	case epoch := <-led:
		return epoch
	case <-time.After(30 * time.Second):
		t.Fatal("nobody leads")
		panic("unreachable")
	}
}

// Propose proposes changes on top of what j shows.
func Propose(t testing.TB, j journal.Journal, epoch journal.Epoch, changes ...journal.Change) error {
	t.Helper()
	return j.Propose(t.Context(), journal.Entry{
		Epoch: epoch, Base: j.Hub().Seq(), Time: time.Now().UnixNano(), Actor: "suite", Changes: changes,
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustBe(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func content(h *journal.Hub) []string {
	var lines []string
	for _, r := range h.List("pods", "") {
		lines = append(lines, fmt.Sprintf("%s@%d=%s", r.Key.Name, r.Seq, r.Value))
	}
	return lines
}

func mustShow(t *testing.T, j journal.Journal, want ...string) {
	t.Helper()
	if got := content(j.Hub()); !slices.Equal(got, want) {
		t.Fatalf("shows %v, want %v", got, want)
	}
}

// Run runs the suite; open makes an empty journal.
func Run(t *testing.T, open func(t *testing.T) *Subject) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s *Subject)
	}{
		{"what was proposed shows when it is answered", shows},
		{"a stale epoch or base is refused as a whole", refuses},
		{"many proposers at once each write once", contends},
		{"leadership lost in flight leaves all of a batch or nothing", loses},
		{"a full disk takes deletions only and loses nothing", fills},
		{"a restart keeps objects, past and commands", reopens},
		{"a closed journal writes nothing", closes},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Journal.Close(); err != nil {
					t.Error(err)
				}
			})
			c.test(t, s)
		})
	}
}

func shows(t *testing.T, s *Subject) {
	j := s.Journal
	epoch := Led(t, j)
	var woken int
	cursor := j.Hub().Subscribe(0, func() { woken++ }, "pods")
	must(t, Propose(t, j, epoch, Set("a", "1"), Set("b", "1")))
	mustShow(t, j, "a@1=1", "b@2=1")
	must(t, Propose(t, j, epoch, Delete("a"), Set("b", "2"), Set("c", "1")))
	mustShow(t, j, "b@4=2", "c@5=1")
	changes, upTo, err := cursor.Next(100)
	must(t, err)
	if len(changes) != 5 || upTo != 5 || woken != 1 {
		t.Errorf("%d changes up to %d after %d wakes, want 5 up to 5 after 1", len(changes), upTo, woken)
	}
	if found := j.Hub().Index("value=1", "pods"); len(found) != 1 || found[0].Key != Pod("c") {
		t.Errorf("the index has %v", found)
	}
	r, _ := j.Hub().Get(Pod("b"))
	object, err := r.Object()
	must(t, err)
	if object.GetAnnotations()["value"] != "2" || object.GetResourceVersion() != "4" {
		t.Errorf("decoded to %v", object)
	}
	must(t, j.Barrier(t.Context()))
	must(t, j.VerifyLeader(t.Context()))
}

func refuses(t *testing.T, s *Subject) {
	j := s.Journal
	epoch := Led(t, j)
	must(t, Propose(t, j, epoch, Set("a", "1")))
	for _, e := range []journal.Entry{
		{Epoch: journal.Epoch{Incarnation: epoch.Incarnation, Term: epoch.Term - 1}, Base: 1},
		{Epoch: journal.Epoch{Incarnation: epoch.Incarnation, Term: epoch.Term + 1}, Base: 1},
		{Epoch: journal.Epoch{Incarnation: epoch.Incarnation + 1, Term: epoch.Term}, Base: 1},
		{Epoch: epoch, Base: 0},
		{Epoch: epoch, Base: 2},
	} {
		e.Changes = []journal.Change{Set("a", "2"), Set("b", "2")}
		e.Commands = []journal.Command{{ID: "refused"}}
		mustBe(t, j.Propose(t.Context(), e), journal.ErrRefused)
	}
	mustShow(t, j, "a@1=1")
	if _, ok := j.Hub().Command("refused"); ok {
		t.Error("a command of a refused entry is remembered")
	}
	must(t, Propose(t, j, epoch, Set("b", "1")))
}

func contends(t *testing.T, s *Subject) {
	const proposers, each = 8, 20
	j := s.Journal
	epoch := Led(t, j)
	var all sync.WaitGroup
	for p := range proposers {
		all.Go(func() {
			for i := range each {
				for {
					err := Propose(t, j, epoch, Set(fmt.Sprintf("%d-%d", p, i), "x"))
					if err == nil {
						break
					}
					if !errors.Is(err, journal.ErrRefused) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	if n := len(j.Hub().List("pods", "")); n != proposers*each || j.Hub().Seq() != proposers*each {
		t.Errorf("%d objects after %d changes, want %d", n, j.Hub().Seq(), proposers*each)
	}
}

func loses(t *testing.T, s *Subject) {
	j := s.Journal
	var mu sync.Mutex
	var heard []journal.Leadership
	j.Leadership(func(l journal.Leadership) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, l)
	})
	epoch := Led(t, j)
	cursor := j.Hub().Subscribe(0, func() {}, "pods")
	must(t, Propose(t, j, epoch, Set("a", "1")))
	for range 3 {
		s.LoseNext()
		base := j.Hub().Seq()
		before := content(j.Hub())
		mustBe(t, Propose(t, j, epoch, Set("x", "1"), Set("y", "1")), journal.ErrUnknownOutcome)
		s.Elect()
		deadline := time.Now().Add(30 * time.Second)
		var next journal.Epoch
		for next.Term <= epoch.Term {
			if time.Now().After(deadline) {
				t.Fatal("leadership did not come back in a higher term")
			}
			next = Led(t, j)
		}
		if seq := j.Hub().Seq(); seq != base && seq != base+2 {
			t.Fatalf("half a batch was written: %d after %d", seq, base)
		} else if seq == base && !slices.Equal(before, content(j.Hub())) {
			t.Fatal("something was written without a number")
		}
		mustBe(t, Propose(t, j, epoch, Set("z", "1")), journal.ErrRefused)
		epoch = next
		must(t, Propose(t, j, epoch, Set("b", "1")))
	}
	changes, upTo, err := cursor.Next(100)
	must(t, err)
	if upTo != j.Hub().Seq() || len(changes) != int(upTo) {
		t.Errorf("a watcher saw %d changes up to %d, want all %d", len(changes), upTo, j.Hub().Seq())
	}
	mu.Lock()
	defer mu.Unlock()
	var last uint64
	for i, l := range heard {
		if i > 0 && l == heard[i-1] {
			t.Errorf("heard %v twice", l)
		}
		if l.Leader && l.Epoch.Term <= last {
			t.Errorf("term %d after term %d", l.Epoch.Term, last)
		}
		if l.Leader {
			last = l.Epoch.Term
		}
	}
	if last != epoch.Term {
		t.Errorf("heard up to term %d, the present one is %d", last, epoch.Term)
	}
}

func fills(t *testing.T, s *Subject) {
	j := s.Journal
	epoch := Led(t, j)
	must(t, Propose(t, j, epoch, Set("a", "1"), Set("b", "1")))
	s.SetFull(true)
	mustBe(t, Propose(t, j, epoch, Set("c", "1")), journal.ErrNoRoom)
	mustBe(t, Propose(t, j, epoch, Delete("a"), Set("c", "1")), journal.ErrNoRoom)
	must(t, Propose(t, j, epoch, Delete("a")))
	ending := Set("b", "ending")
	ending.Frees = true
	must(t, Propose(t, j, epoch, ending))
	must(t, j.VerifyLeader(t.Context()))
	mustShow(t, j, "b@4=ending")
	s.SetFull(false)
	must(t, Propose(t, j, epoch, Set("c", "1")))
	mustShow(t, j, "b@4=ending", "c@5=1")
}

func reopens(t *testing.T, s *Subject) {
	epoch := Led(t, s.Journal)
	var want []string
	for round := range 4 {
		j := s.Journal
		must(t, j.Propose(t.Context(), journal.Entry{
			Epoch: epoch, Base: j.Hub().Seq(), Time: time.Now().UnixNano(),
			Changes:  []journal.Change{Set("a", fmt.Sprint(round)), Set(fmt.Sprint(round), "x"), Delete("none")},
			Commands: []journal.Command{{ID: fmt.Sprint("command ", round), Result: fmt.Append(nil, round)}},
		}))
		old := j
		s.Journal = s.Reopen()
		if err := Propose(t, old, epoch, Set("old", "x")); !errors.Is(err, journal.ErrNotLeader) {
			t.Errorf("the one before the restart: got %v, want %v", err, journal.ErrNotLeader)
		}
		next := Led(t, s.Journal)
		if next.Term <= epoch.Term || next.Incarnation != epoch.Incarnation {
			t.Errorf("epoch %v after %v", next, epoch)
		}
		epoch = next
		want = append(want, fmt.Sprintf("%d@%d=x", round, 3*round+2))
		mustShow(t, s.Journal, append(slices.Clone(want), fmt.Sprintf("a@%d=%d", 3*round+1, round))...)
		for i := range round + 1 {
			if result, ok := s.Journal.Hub().Command(fmt.Sprint("command ", i)); !ok || string(result) != fmt.Sprint(i) {
				t.Errorf("command %d: got %q, %t", i, result, ok)
			}
		}
		changes, upTo, err := s.Journal.Hub().Subscribe(2, func() {}, "pods").Next(100)
		must(t, err)
		if len(changes) != 2*round || upTo != uint64(3*round+3) {
			t.Errorf("%d changes up to %d since 2, want %d", len(changes), upTo, 2*round)
		}
		for i, c := range changes {
			if c.New.Key == Pod("a") && (c.Old == nil || string(c.Old.Value) != fmt.Sprint(i/2)) {
				t.Errorf("change %d forgot what was before", c.Seq)
			}
		}
	}
}

func closes(t *testing.T, s *Subject) {
	j := s.Journal
	epoch := Led(t, j)
	must(t, Propose(t, j, epoch, Set("a", "1")))
	must(t, j.Close())
	mustBe(t, Propose(t, j, epoch, Set("b", "1")), journal.ErrNotLeader)
	mustBe(t, j.VerifyLeader(context.Background()), journal.ErrNotLeader)
	mustShow(t, j, "a@1=1")
}
