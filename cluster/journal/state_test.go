package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/api"
)

// decode is a Decoder that needs no kinds: the value becomes an annotation.
func decode(key api.Key, value []byte, seq uint64) (api.Object, error) {
	if string(value) == "broken" {
		return nil, errors.New("broken")
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: key.Name, Namespace: key.Namespace, ResourceVersion: fmt.Sprint(seq),
		Annotations: map[string]string{"value": string(value)},
	}}, nil
}

func pod(name string) api.Key {
	return api.Key{Resource: "pods", Namespace: "default", Name: name}
}

func set(k api.Key, value string, index ...string) Change {
	return Change{Key: k, Value: []byte(value), Index: index}
}

func del(k api.Key) Change { return Change{Key: k} }

// must applies changes to s as a correct leader in term 1 does.
func must(t testing.TB, s *State, changes ...Change) *State {
	t.Helper()
	next, err := s.Apply(1, Entry{Epoch: Epoch{1, 1}, Base: s.Seq(), Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func names(records []*Record) []string {
	found := make([]string, len(records))
	for i, r := range records {
		found[i] = fmt.Sprintf("%s@%d", r.Key, r.Seq)
	}
	return found
}

func encoded(t testing.TB, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAnEntryIsRefusedAsAWhole(t *testing.T) {
	s := must(t, NewState(decode), set(pod("a"), "1"))
	good := Entry{Epoch: Epoch{1, 7}, Base: 1, Changes: []Change{set(pod("b"), "1")}}
	if _, err := s.Apply(7, good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(e *Entry){
		"of an older term":                    func(e *Entry) { e.Epoch.Term = 6 },
		"of a term that never was":            func(e *Entry) { e.Epoch.Term = 8 },
		"of another incarnation":              func(e *Entry) { e.Epoch.Incarnation = 2 },
		"that has missed a change":            func(e *Entry) { e.Base = 0 },
		"that knows a change that never was":  func(e *Entry) { e.Base = 2 },
		"with a key without a name":           func(e *Entry) { e.Changes = append(e.Changes, set(pod(""), "1")) },
		"with a key without a resource":       func(e *Entry) { e.Changes = append(e.Changes, set(api.Key{Name: "x"}, "1")) },
		"with a key that could pass for two":  func(e *Entry) { e.Changes = append(e.Changes, set(pod("x\x00y"), "1")) },
		"with a term that could pass for two": func(e *Entry) { e.Changes = append(e.Changes, set(pod("x"), "1", "a\x00b")) },
	} {
		t.Run(name, func(t *testing.T) {
			e := good
			spoil(&e)
			before := encoded(t, s)
			if _, err := s.Apply(7, e); !errors.Is(err, ErrRefused) {
				t.Errorf("got %v, want %v", err, ErrRefused)
			}
			if !bytes.Equal(before, encoded(t, s)) {
				t.Error("the state changed")
			}
		})
	}
}

func TestChangesAreNumbered(t *testing.T) {
	s := must(t, NewState(decode), set(pod("b"), "1"), set(pod("a"), "1"), set(pod("b"), "2"), del(pod("none")))
	s2 := must(t, s, del(pod("a")), set(api.Key{Resource: "nodes", Name: "n1"}, "1"))
	if got, want := names(s.List("pods", "")), []string{"pods/default/a@2", "pods/default/b@3"}; !slices.Equal(got, want) {
		t.Errorf("first: got %v, want %v", got, want)
	}
	if got, want := names(s2.List("pods", "default")), []string{"pods/default/b@3"}; !slices.Equal(got, want) {
		t.Errorf("second: got %v, want %v", got, want)
	}
	if got, want := names(s2.List("nodes", "")), []string{"nodes/n1@6"}; !slices.Equal(got, want) {
		t.Errorf("nodes: got %v, want %v", got, want)
	}
	if s.Seq() != 4 || s2.Seq() != 6 || s2.Len() != 2 {
		t.Errorf("sequences %d and %d, %d objects", s.Seq(), s2.Seq(), s2.Len())
	}
}

func TestListsKeepToTheirResourceAndNamespace(t *testing.T) {
	s := must(t, NewState(decode),
		set(api.Key{Resource: "pods", Namespace: "a", Name: "x"}, ""),
		set(api.Key{Resource: "pods", Namespace: "a-b", Name: "x"}, ""),
		set(api.Key{Resource: "pods", Namespace: "ab", Name: "x"}, ""),
		set(api.Key{Resource: "podsx", Namespace: "a", Name: "x"}, ""),
		set(api.Key{Resource: "pods", Namespace: "a", Name: "x-y"}, ""),
	)
	if got, want := names(s.List("pods", "a")), []string{"pods/a/x@1", "pods/a/x-y@5"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := names(s.List("pods", "")), []string{"pods/a/x@1", "pods/a/x-y@5", "pods/a-b/x@2", "pods/ab/x@3"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestIndexesFollowTheObject(t *testing.T) {
	s := must(t, NewState(decode), set(pod("a"), "1"), set(pod("b"), "1", "node=n1", "owner=u"))
	s = must(t, s, set(pod("a"), "2", "node=n1"))
	check := func(term string, want ...string) {
		t.Helper()
		if got := names(s.Index(term, "pods")); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", term, got, want)
		}
	}
	check("node=n1", "pods/default/a@3", "pods/default/b@2")
	check("owner=u", "pods/default/b@2")
	s = must(t, s, set(pod("a"), "3", "node=n2"), del(pod("b")))
	check("node=n1")
	check("node=n2", "pods/default/a@4")
	check("owner=u")
	check("node=")
}

func TestCommandsAreRememberedForTenMinutes(t *testing.T) {
	s := NewState(decode)
	say := func(at time.Duration, ids ...string) {
		t.Helper()
		e := Entry{Epoch: Epoch{1, 1}, Base: s.Seq(), Time: int64(at)}
		for _, id := range ids {
			e.Commands = append(e.Commands, Command{id, []byte(id + at.String())})
		}
		next, err := s.Apply(1, e)
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	known := func(id, want string) {
		t.Helper()
		result, ok := s.Command(id)
		if ok != (want != "") || string(result) != want {
			t.Errorf("%s: got %q, want %q", id, result, want)
		}
	}
	say(time.Minute, "a", "b")
	say(9*time.Minute, "b", "c")
	say(3*time.Minute, "d") // a clock that went back: not older than what came before
	known("a", "a1m0s")
	known("b", "b9m0s")
	say(11*time.Minute + 1)
	known("a", "")
	known("b", "b9m0s")
	known("d", "d3m0s")
	say(19*time.Minute + 1)
	known("b", "")
	known("d", "")
}

func TestCommandsHaveALimit(t *testing.T) {
	s := NewState(decode)
	for i := range CommandLimit/1000 + 1 {
		e := Entry{Epoch: Epoch{1, 1}}
		for j := range 1000 {
			e.Commands = append(e.Commands, Command{ID: fmt.Sprintf("%d.%d", i, j)})
		}
		next, err := s.Apply(1, e)
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	_, first := s.Command("0.999")
	_, second := s.Command("1.0")
	if first || !second || s.commands.Len() != CommandLimit {
		t.Errorf("first thousand kept: %t, second: %t, in all %d", first, second, s.commands.Len())
	}
}

func TestThePastHasALimitOfItsOwnForEachResource(t *testing.T) {
	node := api.Key{Resource: "nodes", Name: "n1"}
	s := must(t, NewState(decode), set(node, "1"))
	for range (PastLimit + 1000) / 100 {
		var changes []Change
		for i := range 100 {
			changes = append(changes, set(pod(fmt.Sprint(i)), "x"))
		}
		s = must(t, s, changes...)
	}
	h := NewHub(s)
	if _, _, err := h.Subscribe(1000, func() {}, "pods").Next(1); !errors.Is(err, ErrGone) {
		t.Errorf("one too far back: got %v, want %v", err, ErrGone)
	}
	changes, upTo, err := h.Subscribe(1001, func() {}, "pods").Next(2 * PastLimit)
	if err != nil || len(changes) != PastLimit || changes[0].Seq != 1002 || upTo != s.Seq() {
		t.Errorf("just far enough: %d changes, up to %d, %v", len(changes), upTo, err)
	}
	if changes, _, err := h.Subscribe(0, func() {}, "nodes").Next(10); err != nil || len(changes) != 1 {
		t.Errorf("nodes: %v, %v", changes, err)
	}
	if _, _, err := h.Subscribe(0, func() {}).Next(10); !errors.Is(err, ErrGone) {
		t.Errorf("everything: got %v, want %v", err, ErrGone)
	}
	again, err := DecodeState(bytes.NewReader(encoded(t, s)), decode)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := NewHub(again).Subscribe(1000, func() {}, "pods").Next(1); !errors.Is(err, ErrGone) {
		t.Errorf("after a snapshot, one too far back: got %v, want %v", err, ErrGone)
	}
	if changes, _, err := NewHub(again).Subscribe(1001, func() {}, "pods").Next(2 * PastLimit); err != nil || len(changes) != PastLimit {
		t.Errorf("after a snapshot, just far enough: %d changes, %v", len(changes), err)
	}
}

func TestThePastOfLargeObjectsIsShorter(t *testing.T) {
	value := strings.Repeat("x", 1<<20)
	s := NewState(decode)
	for range 100 {
		s = must(t, s, set(pod("a"), value), set(api.Key{Resource: "nodes", Name: "n1"}, "1"))
	}
	restored, err := DecodeState(bytes.NewReader(encoded(t, s)), decode)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // both forget the same
		s = must(t, s, set(pod("a"), value))
		restored = must(t, restored, set(pod("a"), value))
	}
	for name, s := range map[string]*State{"as it was": s, "after a snapshot": restored} {
		const kept = PastBytes >> 20
		h := NewHub(s)
		changes, _, err := h.Subscribe(s.Seq()-kept, func() {}, "pods").Next(2 * kept)
		if err != nil || len(changes) != kept {
			t.Errorf("%s, just far enough: %d changes, %v", name, len(changes), err)
		}
		if _, _, err := h.Subscribe(s.Seq()-kept-1, func() {}, "pods").Next(1); !errors.Is(err, ErrGone) {
			t.Errorf("%s, one too far back: got %v, want %v", name, err, ErrGone)
		}
		if changes, _, err := h.Subscribe(0, func() {}, "nodes").Next(1000); err != nil || len(changes) != 100 {
			t.Errorf("%s, nodes: %d changes, %v", name, len(changes), err)
		}
	}
	if p, _ := s.pasts.Get([]byte("pods")); p.changes.skip > 0 && p.changes.chunks[0][p.changes.skip-1] != (Changed{}) {
		t.Error("what was forgotten is kept alive")
	}
}

// history is what a watcher from the start sees.
func history(t testing.TB, s *State) []string {
	t.Helper()
	changes, _, err := NewHub(s).Subscribe(0, func() {}).Next(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]string, len(changes))
	show := func(r *Record) string {
		if r == nil {
			return "-"
		}
		return fmt.Sprintf("%s@%d=%s%v", r.Key, r.Seq, r.Value, r.Index)
	}
	for i, c := range changes {
		lines[i] = fmt.Sprintf("%d %s %s", c.Seq, show(c.Old), show(c.New))
	}
	return lines
}

// randomEntry is what a correct leader might propose next.
func randomEntry(r *rand.Rand, s *State) Entry {
	e := Entry{Epoch: Epoch{1, 1}, Base: s.Seq(), Time: s.time + r.Int64N(int64(3*time.Minute)), Actor: "test"}
	for range r.IntN(4) {
		k := api.Key{
			Resource: []string{"pods", "nodes", "secrets"}[r.IntN(3)], Namespace: []string{"", "a", "b"}[r.IntN(3)],
			Name: fmt.Sprint(r.IntN(10)),
		}
		if r.IntN(3) == 0 {
			e.Changes = append(e.Changes, del(k))
		} else {
			e.Changes = append(e.Changes, set(k, fmt.Sprint(r.Uint32()), "t="+fmt.Sprint(r.IntN(2))))
		}
	}
	for range r.IntN(2) {
		e.Commands = append(e.Commands, Command{fmt.Sprint(r.IntN(20)), []byte(fmt.Sprint(r.Uint32()))})
	}
	return e
}

func TestASnapshotIsTheState(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		s, viaSnapshot, viaLog := NewState(decode), NewState(decode), NewState(decode)
		for range 200 {
			e := randomEntry(r, s)
			data, err := EncodeEntry(e)
			if err != nil {
				t.Fatal(err)
			}
			fromLog, err := DecodeEntry(data)
			if err != nil {
				t.Fatal(err)
			}
			for _, next := range []struct {
				state *(*State)
				entry Entry
			}{{&s, e}, {&viaSnapshot, e}, {&viaLog, fromLog}} {
				if *next.state, err = (*next.state).Apply(1, next.entry); err != nil {
					t.Fatal(err)
				}
			}
			if r.IntN(10) == 0 {
				if viaSnapshot, err = DecodeState(bytes.NewReader(encoded(t, viaSnapshot)), decode); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
		if !bytes.Equal(encoded(t, s), encoded(t, viaSnapshot)) || !bytes.Equal(encoded(t, s), encoded(t, viaLog)) {
			t.Fatalf("seed %d: the same entries made different states", seed)
		}
		if diff := cmp.Diff(history(t, s), history(t, viaSnapshot)); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		if diff := cmp.Diff(names(s.Index("t=1", "pods")), names(viaSnapshot.Index("t=1", "pods"))); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

func TestADamagedSnapshotIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	s := NewState(decode)
	for range 50 {
		next, err := s.Apply(1, randomEntry(r, s))
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	good := encoded(t, s)
	for range 2000 {
		bad := slices.Clone(good)
		if r.IntN(2) == 0 {
			bad = bad[:r.IntN(len(bad))]
		} else {
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		}
		if _, err := DecodeState(bytes.NewReader(bad), decode); err == nil {
			t.Fatal("a damaged snapshot was read without an error")
		}
	}
	if _, err := DecodeState(bytes.NewReader(append(good, 0)), decode); err == nil {
		t.Error("a snapshot with something behind it was read without an error")
	}
	newer := bytes.Replace(good, []byte("snapshot 1"), []byte("snapshot 2"), 1)
	if _, err := DecodeState(bytes.NewReader(newer), decode); err == nil || !strings.Contains(err.Error(), "newer agent") {
		t.Errorf("of a newer agent: got %v", err)
	}
}

func TestEntriesHaveAVersionAndALimit(t *testing.T) {
	if _, err := DecodeEntry([]byte{2}); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("of a newer agent: got %v", err)
	}
	if _, err := DecodeEntry(nil); err == nil {
		t.Error("nothing was decoded without an error")
	}
	if _, err := EncodeEntry(Entry{Changes: []Change{{Key: pod("a"), Value: make([]byte, EntryLimit)}}}); err == nil {
		t.Error("too large an entry was encoded without an error")
	}
	e := Entry{
		Epoch: Epoch{1, 2}, Base: 3, Time: time.Now().UnixNano(), Actor: "a",
		Changes:  []Change{del(pod("a")), set(pod("b"), ""), set(pod("c"), "1", "i")},
		Commands: []Command{{"id", []byte("result")}},
	}
	data, err := EncodeEntry(e)
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeEntry(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e, again); diff != "" {
		t.Error(diff)
	}
}

func TestQueue(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var q queue[int]
	var want []int
	type version struct {
		q    queue[int]
		want []int
	}
	var versions []version
	for i := range 400 {
		if r.IntN(3) == 0 {
			n := r.IntN(700)
			q, want = q.drop(n), want[min(n, len(want)):]
		} else {
			items := make([]int, r.IntN(900))
			for j := range items {
				items[j] = i*1000 + j
			}
			q, want = q.push(items), append(slices.Clone(want), items...)
		}
		versions = append(versions, version{q, want})
	}
	for _, v := range versions {
		if v.q.length != len(v.want) {
			t.Fatalf("length %d, want %d", v.q.length, len(v.want))
		}
		for i, n := range v.want {
			if v.q.at(i) != n {
				t.Fatalf("item %d is %d, want %d", i, v.q.at(i), n)
			}
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 3))
	s := NewState(decode)
	for range 20 {
		e := randomEntry(r, s)
		data, err := EncodeEntry(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		if s, err = s.Apply(1, e); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEntry(data)
		if err != nil {
			return
		}
		e.Epoch, e.Base = Epoch{1, 1}, 0
		s, err := NewState(decode).Apply(1, e)
		if err != nil {
			return
		}
		if _, err := DecodeState(bytes.NewReader(encoded(t, s)), decode); err != nil {
			t.Fatal(err)
		}
	})
}

// The checksum would keep the fuzzer out, so that it writes all but the end.
func FuzzDecodeState(f *testing.F) {
	const end = 8 // bytes of the last frame
	r := rand.New(rand.NewPCG(1, 4))
	s := NewState(decode)
	for range 20 {
		next, err := s.Apply(1, randomEntry(r, s))
		if err != nil {
			f.Fatal(err)
		}
		s = next
		data := encoded(f, s)
		f.Add(data[:len(data)-end])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var whole bytes.Buffer
		e := &encoder{w: bufio.NewWriter(&whole)}
		e.write(data)
		e.end()
		if err := e.w.Flush(); err != nil {
			t.Fatal(err)
		}
		s, err := DecodeState(&whole, decode)
		if err != nil {
			return
		}
		again, err := DecodeState(bytes.NewReader(encoded(t, s)), decode)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(encoded(t, s), encoded(t, again)) {
			t.Fatal("written again it is something else")
		}
	})
}
