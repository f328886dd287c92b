package door

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/kubernetes/pkg/apis/core"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/model"
)

var change = command.Change{
	Op: command.Create, Key: api.Key{Resource: "configmaps", Namespace: "default", Name: "a"},
	Object: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}},
}

func TestAnUnknownOutcomeIsAskedForAgainUnderTheSameID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		d := New(Config{Commit: func(_ context.Context, c *command.Commit) (*command.Committed, error) {
			ids = append(ids, c.ID)
			switch len(ids) {
			case 1:
				return nil, fmt.Errorf("no answer: %w", journal.ErrUnknownOutcome)
			case 2:
				return &command.Committed{ID: c.ID, Err: journal.ErrUnknownOutcome}, nil
			}
			return &command.Committed{ID: c.ID, Results: []command.Result{{Object: change.Object}}}, nil
		}})
		o, err := d.write(t.Context(), "create", change)
		if err != nil || o != change.Object {
			t.Errorf("got %v, %v", o, err)
		}
		if len(ids) != 3 || ids[0] == "" || ids[0] != ids[1] || ids[1] != ids[2] {
			t.Errorf("asked as %v", ids)
		}
	})
}

func TestAnOutcomeThatStaysUnknownIsSaidToBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Commit: func(context.Context, *command.Commit) (*command.Committed, error) {
			return nil, journal.ErrUnknownOutcome
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := d.write(ctx, "create", change)
		want := "create configmaps/default/a: whether it was written is not known; look, or send it again with the same Idempotency-Key"
		if !apierrors.IsTimeout(err) || err.(apierrors.APIStatus).Status().Message != "Timeout: "+want {
			t.Errorf("got %v", err)
		}
		if causes := err.(apierrors.APIStatus).Status().Details.Causes; len(causes) != 1 || causes[0].Type != OutcomeUnknown {
			t.Errorf("causes: %v", causes)
		}
	})
}

func TestWhatTheRegistrySaysIsPassedOn(t *testing.T) {
	refused := apierrors.NewTooManyRequests("too many", 1)
	answer := &command.Committed{Err: refused}
	d := New(Config{Commit: func(context.Context, *command.Commit) (*command.Committed, error) { return answer, nil }})
	if _, err := d.write(t.Context(), "create", change); !apierrors.IsTooManyRequests(err) {
		t.Errorf("got %v", err)
	}
	answer = &command.Committed{Results: []command.Result{{}, {}}}
	if _, err := d.write(t.Context(), "create", change); err == nil {
		t.Error("two answers to one change went through")
	}
}

func TestAWriteThatNeverComesFirstTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		again, tries := (&Door{}).again(), 0
		err := error(nil)
		for ; err == nil; tries++ {
			err = again.wait(ctx, 7)
		}
		if s := apierrors.APIStatus(nil); !errors.As(err, &s) || s.Status().Code != http.StatusGatewayTimeout {
			t.Errorf("after %d tries: %v", tries, err)
		}
	})
}

func TestPositionsSortAsListsDo(t *testing.T) {
	s := &kindStorage{kind: api.KindFor("events")}
	var keys []api.Key
	for _, namespace := range []string{"a", "a-b", "ab"} {
		for _, name := range []string{"", "\tx", " x", "x", "x\t", "x\ty", "x y", "xy"} {
			keys = append(keys, api.Key{Resource: "events", Namespace: namespace, Name: name})
		}
	}
	for _, a := range keys {
		for _, b := range keys {
			if got, want := strings.Compare(s.position(a), s.position(b)), a.Compare(b); got != want {
				t.Errorf("%q and %q: %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestCommandIDs(t *testing.T) {
	as := func(name, key string) context.Context {
		ctx := request.WithUser(context.Background(), &user.DefaultInfo{Name: name})
		return WithIdempotencyKey(ctx, key)
	}
	first, second := commandID(as("a", ""), "create", change), commandID(as("a", ""), "create", change)
	if first == second {
		t.Error("two requests without a key are one")
	}
	same := commandID(as("a", "k"), "create", change)
	if commandID(as("a", "k"), "create", change) != same {
		t.Error("one request is two")
	}
	other := change
	other.Key.Name = "b"
	for name, id := range map[string]string{
		"another user":   commandID(as("b", "k"), "create", change),
		"another key":    commandID(as("a", "l"), "create", change),
		"another verb":   commandID(as("a", "k"), "delete", change),
		"another object": commandID(as("a", "k"), "create", other),
	} {
		if id == same {
			t.Errorf("%s gets the same answer", name)
		}
	}
}

func TestReadersShareTheProofOfLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rounds atomic.Int32
		s := shared{do: func(context.Context) error {
			rounds.Add(1)
			time.Sleep(time.Second)
			return nil
		}}
		var wg sync.WaitGroup
		wait := func() {
			if err := s.wait(t.Context()); err != nil {
				t.Error(err)
			}
		}
		wg.Go(wait)
		synctest.Wait() // its round has begun: it proves nothing to who comes later
		for range 100 {
			wg.Go(wait)
		}
		wg.Wait()
		if n := rounds.Load(); n != 2 {
			t.Errorf("%d rounds for a reader and a hundred after it", n)
		}
	})
}

func TestAReadThatCannotBeProvedIsRefused(t *testing.T) {
	lost := errors.New("not the leader")
	d := New(Config{Hub: journal.NewHub(journal.NewState(api.Decode)), Verify: func(context.Context) error { return lost }})
	if _, err := d.Get(t.Context(), change.Key); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("got %v", err)
	}
	lost = nil
	if _, err := d.Get(t.Context(), change.Key); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("an empty journal: %v", err)
	}
}

func TestPinsAreFewAndShortLived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states := make([]*journal.State, pinMax+1)
		s := journal.NewState(api.Decode)
		for i := range states {
			value, err := api.Encode(change.Object)
			if err != nil {
				t.Fatal(err)
			}
			s, err = s.Apply(1, journal.Entry{
				Epoch: journal.Epoch{Incarnation: s.Incarnation(), Term: 1}, Base: s.Seq(),
				Changes: []journal.Change{{Key: change.Key, Value: value}},
			})
			if err != nil {
				t.Fatal(err)
			}
			states[i] = s
		}
		var p pins
		held := func(i int) bool { _, ok := p.at(states[i].Seq()); return ok }
		for _, s := range states[:pinMax] {
			p.hold(s)
		}
		p.hold(states[0]) // used again: the youngest now
		p.hold(states[pinMax])
		if !held(0) || held(1) || !held(2) || !held(pinMax) {
			t.Error("not the oldest went")
		}
		time.Sleep(pinFor - time.Second)
		p.hold(states[2])
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if held(0) || !held(2) {
			t.Error("not the unused went")
		}
		time.Sleep(pinFor)
		synctest.Wait()
		if len(p.states) != 0 {
			t.Errorf("%d are still held", len(p.states))
		}
	})
}

func TestARefusalToBeAskedDoesNotMakeAnOutcomeKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		d := New(Config{Commit: func(_ context.Context, c *command.Commit) (*command.Committed, error) {
			switch asked++; asked {
			case 1:
				return nil, journal.ErrUnknownOutcome
			case 2:
				return nil, apierrors.NewServiceUnavailable("no leader right now")
			case 3:
				return &command.Committed{ID: c.ID, Err: apierrors.NewTooManyRequests("too many", 1)}, nil
			}
			return &command.Committed{ID: c.ID, Results: []command.Result{{Object: change.Object}}}, nil
		}})
		if o, err := d.write(t.Context(), "create", change); err != nil || o != change.Object || asked != 4 {
			t.Errorf("asked %d times, got %v, %v", asked, o, err)
		}
	})
}

func TestAQuietWatchHearsNowAndThenHowFarItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := model.New(model.Options{Decode: api.Decode})
		var reign journal.Leadership
		j.Leadership(func(l journal.Leadership) { reign = l })
		namespace, err := api.Encode(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Propose(t.Context(), journal.Entry{Epoch: reign.Epoch, Base: j.Hub().Seq(), Changes: []journal.Change{
			{Key: api.Key{Resource: "namespaces", Name: "n"}, Value: namespace},
		}}); err != nil {
			t.Fatal(err)
		}
		at := strconv.FormatUint(j.Hub().Seq(), 10)
		s := &kindStorage{door: New(Config{Hub: j.Hub(), Verify: func(context.Context) error { return nil }}), kind: api.KindFor("configmaps"), new: func() runtime.Object { return &core.ConfigMap{} }}
		for _, wanted := range []bool{true, false} {
			predicate := storage.Everything
			predicate.AllowWatchBookmarks = wanted
			w, err := s.Watch(t.Context(), "/configmaps", storage.ListOptions{Predicate: predicate})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				time.Sleep(bookmarkEvery)
				synctest.Wait()
				select {
				case e := <-w.ResultChan():
					if !wanted || e.Type != watch.Bookmark || e.Object.(*core.ConfigMap).ResourceVersion != at {
						t.Errorf("bookmarks wanted %v: heard %s %v", wanted, e.Type, e.Object)
					}
				default:
					if wanted {
						t.Error("heard nothing")
					}
				}
			}
			w.Stop()
			synctest.Wait()
			if _, more := <-w.ResultChan(); more {
				t.Error("the watch goes on")
			}
		}
	})
}

// After a start the replica shows less than was acknowledged, until leadership
// is proved.
func TestAnUpdateIsNotRefusedByAReplicaThatIsBehind(t *testing.T) {
	state := journal.NewState(api.Decode)
	for _, value := range []string{"old", "new"} {
		o := change.Object.DeepCopyObject().(*corev1.ConfigMap)
		o.Data = map[string]string{"a": value}
		encoded, err := api.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		state, err = state.Apply(1, journal.Entry{
			Epoch: journal.Epoch{Incarnation: state.Incarnation(), Term: 1}, Base: state.Seq(),
			Changes: []journal.Change{{Key: change.Key, Value: encoded}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	hub := journal.NewHub(journal.NewState(api.Decode))
	var wrote command.Change
	d := New(Config{
		Hub:    hub,
		Verify: func(context.Context) error { hub.Publish(state); return nil },
		Commit: func(_ context.Context, c *command.Commit) (*command.Committed, error) {
			wrote = c.Changes[0]
			return &command.Committed{ID: c.ID, Results: []command.Result{{Object: wrote.Object}}}, nil
		},
	})
	s := &kindStorage{door: d, kind: api.KindFor("configmaps"), new: func() runtime.Object { return &core.ConfigMap{} }}
	update := func(now runtime.Object, _ storage.ResponseMeta) (runtime.Object, *uint64, error) {
		if v := now.(*core.ConfigMap).Data["a"]; v != "new" {
			return nil, nil, fmt.Errorf("it is %q", v)
		}
		return now, nil, nil
	}
	if err := s.GuaranteedUpdate(t.Context(), "/configmaps/default/a", &core.ConfigMap{}, false, nil, update, nil); err != nil || wrote.Version != state.Seq() {
		t.Errorf("%v; wrote on %d, want %d", err, wrote.Version, state.Seq())
	}
	err := s.GuaranteedUpdate(t.Context(), "/configmaps/default/b", &core.ConfigMap{}, false, nil, update, nil)
	if !storage.IsNotFound(err) {
		t.Errorf("what is not there: %v", err)
	}
}
