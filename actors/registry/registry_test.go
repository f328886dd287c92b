package registry_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/actors"
	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/model"
)

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"a": "1"}}
}

func key(name string) api.Key {
	return api.Key{Resource: "configmaps", Namespace: "default", Name: name}
}

func TestWritesAreNumberedCheckedAndSeen(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		made := w.Create(configMap("a"))
		if made.GetUID() == "" || made.GetResourceVersion() == "" || made.GetCreationTimestamp().Time.IsZero() {
			t.Errorf("a created object lacks what the registry gives: %+v", made.GetResourceVersion())
		}
		again := w.Commit(command.Change{Op: command.Create, Key: key("a"), Object: configMap("a")})
		if !apierrors.IsAlreadyExists(again.Results[0].Err) {
			t.Errorf("a name twice: %v", again.Results[0].Err)
		}
		changed := configMap("a")
		changed.UID = made.GetUID()
		changed.CreationTimestamp = made.GetCreationTimestamp()
		changed.Data["a"] = "2"
		stale := w.Commit(command.Change{Op: command.Update, Key: key("a"), Object: changed, Version: 1})
		if !apierrors.IsConflict(stale.Results[0].Err) {
			t.Errorf("an update of a stale version: %v", stale.Results[0].Err)
		}
		updated := w.Must(command.Change{Op: command.Update, Key: key("a"), Object: changed})
		if updated.GetResourceVersion() == made.GetResourceVersion() {
			t.Error("an update kept the version")
		}
		same := w.Must(command.Change{Op: command.Update, Key: key("a"), Object: changed})
		if same.GetResourceVersion() != updated.GetResourceVersion() {
			t.Error("an update that changes nothing got a new version")
		}
		wrong := w.Commit(command.Change{Op: command.Delete, Key: key("a"), UID: "another"})
		if !apierrors.IsConflict(wrong.Results[0].Err) {
			t.Errorf("a delete of another UID: %v", wrong.Results[0].Err)
		}
		w.Must(command.Change{Op: command.Delete, Key: key("a")})
		if w.Get(key("a")) != nil {
			t.Error("a deleted object is still there")
		}
		missing := w.Commit(command.Change{Op: command.Delete, Key: key("a")})
		if !apierrors.IsNotFound(missing.Results[0].Err) {
			t.Errorf("a delete of nothing: %v", missing.Results[0].Err)
		}
		homeless := configMap("x")
		homeless.Namespace = "nowhere"
		refused := w.Commit(command.Change{Op: command.Create, Key: api.KeyOf(homeless), Object: homeless})
		if !apierrors.IsNotFound(refused.Results[0].Err) {
			t.Errorf("a create in a namespace that does not exist: %v", refused.Results[0].Err)
		}
	})
}

func TestOneCommitMayBuildOnItself(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		second := configMap("a")
		second.Data["a"] = "2"
		answer := w.Commit(
			command.Change{Op: command.Create, Key: key("a"), Object: configMap("a")},
			command.Change{Op: command.Update, Key: key("a"), Object: second},
			command.Change{Op: command.Create, Key: key("a"), Object: configMap("a")},
			command.Change{Op: command.Delete, Key: key("a")},
			command.Change{Op: command.Create, Key: key("a"), Object: configMap("a")},
		)
		for i, want := range []bool{true, true, false, true, true} {
			if got := answer.Results[i].Err == nil; got != want {
				t.Errorf("change %d: %v", i, answer.Results[i].Err)
			}
		}
		if got := w.Get(key("a")).(*corev1.ConfigMap).Data["a"]; got != "1" {
			t.Errorf("it ends as %q", got)
		}
	})
}

func TestTheSameCommandTwiceIsDoneOnce(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		change := command.Change{Op: command.Create, Key: api.Key{Resource: "configmaps", Namespace: "default"}, Object: configMap("")}
		change.Object.SetGenerateName("web-")
		first := w.CommitAs("same", change)
		name := first.Results[0].Object.GetName()
		w.Create(configMap("other"))
		w.Fail(actors.RegistryPath)
		again := w.CommitAs("same", change)
		if again.Err != nil || again.Results[0].Err != nil || again.Results[0].Object.GetName() != name {
			t.Errorf("asked again: %+v", again)
		}
		if got := w.Names("configmaps", "default"); len(got) != 2 {
			t.Errorf("there are %v", got)
		}
		w.CommitAs("refused", command.Change{Op: command.Create, Key: key("other"), Object: configMap("other")}, command.Change{Op: command.Create, Key: key("new"), Object: configMap("new")})
		w.Must(command.Change{Op: command.Delete, Key: key("other")})
		again = w.CommitAs("refused", command.Change{Op: command.Create, Key: key("other"), Object: configMap("other")}, command.Change{Op: command.Create, Key: key("new"), Object: configMap("new")})
		if !apierrors.IsAlreadyExists(again.Results[0].Err) || again.Results[1].Err != nil {
			t.Errorf("a half refused command asked again: %v, %v", again.Results[0].Err, again.Results[1].Err)
		}
	})
}

func TestAnUnknownOutcomeIsSaidAndFoundOut(t *testing.T) {
	for _, fate := range []model.Fate{model.Gone, model.Committed, model.Late} {
		controltest.Run(t, func(w *controltest.World) {
			w.Journal.Lose(fate)
			change := command.Change{Op: command.Create, Key: key("a"), Object: configMap("a")}
			if answer := w.CommitAs("id", change); !errors.Is(answer.Err, journal.ErrUnknownOutcome) {
				t.Fatalf("fate %d: %v", fate, answer.Err)
			}
		})
	}
}

func TestAFullDiskTakesOnlyDeletes(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(configMap("a"))
		graceful := w.Create(configMap("graceful"))
		w.Journal.SetFull(true)
		answer := w.Commit(command.Change{Op: command.Create, Key: key("b"), Object: configMap("b")})
		if s := apierrors.APIStatus(nil); !errors.As(answer.Err, &s) || s.Status().Code != 507 {
			t.Errorf("a create on a full disk: %v", answer.Err)
		}
		w.Must(command.Change{Op: command.Delete, Key: key("a")})

		// The steps of a graceful deletion are deletes too.
		now := metav1.Now()
		going := graceful.DeepCopyObject().(api.Object)
		going.SetDeletionTimestamp(&now)
		w.Must(command.Change{Op: command.Update, Key: key("graceful"), Object: going})
		w.Must(command.Change{Op: command.Delete, Key: key("graceful")})
		w.Journal.SetFull(false)
		w.Create(configMap("b"))
	})
}

func TestOnAFullDiskAMixedCommitDeletesAllTheSame(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(configMap("a"))
		held := configMap("held")
		held.Finalizers = []string{"example.com/hold"}
		w.Create(held)
		w.Journal.SetFull(true)
		changes := []command.Change{
			{Op: command.Create, Key: key("b"), Object: configMap("b")},
			{Op: command.Delete, Key: key("a")},
			{Op: command.Delete, Key: key("held")},
		}
		answer := w.CommitAs("mixed", changes...)
		again := w.CommitAs("mixed", changes...)
		for _, m := range []*command.Committed{answer, again} {
			if m.Err != nil {
				t.Fatal(m.Err)
			}
			s := apierrors.APIStatus(nil)
			if !errors.As(m.Results[0].Err, &s) || s.Status().Code != 507 {
				t.Errorf("the create: %v", m.Results[0].Err)
			}
			if m.Results[1].Err != nil || m.Results[2].Err != nil {
				t.Errorf("the deletes: %v, %v", m.Results[1].Err, m.Results[2].Err)
			}
		}
		if w.Get(key("a")) != nil || w.Get(key("b")) != nil || w.Get(key("held")).GetDeletionTimestamp() == nil {
			t.Error("what was answered is not what is there")
		}
	})
}

func TestAFullDiskTakesNoAnswerBack(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		create := command.Change{Op: command.Create, Key: key("a"), Object: configMap("a")}
		w.CommitAs("once", create)
		w.Journal.SetFull(true)
		registry := w.System.NewLocalPID(actors.RegistryPath)
		var futures []interface{ Result() (any, error) }
		for _, c := range []*command.Commit{
			{ID: "under way", Changes: []command.Change{{Op: command.Create, Key: key("b"), Object: configMap("b")}}},
			{ID: "once", Changes: []command.Change{create}}, // in one batch with what is refused
			{ID: "refused", Changes: []command.Change{{Op: command.Create, Key: key("c"), Object: configMap("c")}}},
		} {
			futures = append(futures, w.System.Root.RequestFuture(registry, c, time.Minute))
		}
		w.Advance(time.Second)
		for i, refused := range []bool{true, false, true} {
			answer, err := futures[i].Result()
			if err != nil || (answer.(*command.Committed).Err != nil) != refused {
				t.Errorf("command %d: %v, %v", i, answer, err)
			}
		}
	})
}

func TestARegistryThatPanicsLosesAndDoublesNothing(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		registry := w.System.NewLocalPID(actors.RegistryPath)
		var futures []interface{ Result() (any, error) }
		for i := range 50 {
			futures = append(futures, w.System.Root.RequestFuture(registry, &command.Commit{
				ID: fmt.Sprint("w", i), Changes: []command.Change{{Op: command.Create, Key: key(fmt.Sprint("w", i)), Object: configMap(fmt.Sprint("w", i))}},
			}, time.Minute))
			if i == 20 {
				if err := w.Tree.Fail(actors.RegistryPath); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		for i, f := range futures {
			answer, err := f.Result()
			if err != nil {
				t.Fatalf("write %d heard nothing: %v", i, err)
			}
			if errors.Is(answer.(*command.Committed).Err, journal.ErrUnknownOutcome) {
				again := w.CommitAs(fmt.Sprint("w", i), command.Change{Op: command.Create, Key: key(fmt.Sprint("w", i)), Object: configMap(fmt.Sprint("w", i))})
				if again.Err != nil || again.Results[0].Err != nil {
					t.Errorf("write %d asked again: %v %v", i, again.Err, again.Results)
				}
			}
		}
		if got := len(w.Names("configmaps", "default")); got != 50 {
			t.Errorf("%d of 50 writes are there", got)
		}
		if w.Restarts(actors.RegistryPath) != 1 {
			t.Error("the registry was not restarted")
		}
	})
}

func TestNodesGetPartsOfThePodRange(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		for i, want := range []string{"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"} {
			node := w.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i)}}).(*corev1.Node)
			if node.Spec.PodCIDR != want {
				t.Errorf("node %d got %s", i, node.Spec.PodCIDR)
			}
		}
		w.Must(command.Change{Op: command.Delete, Key: api.Key{Resource: "nodes", Name: "n1"}})
		if node := w.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n3"}}).(*corev1.Node); node.Spec.PodCIDR != "10.244.1.0/24" {
			t.Errorf("a freed part was not given again: %s", node.Spec.PodCIDR)
		}
	})
}

func TestFinalizersHoldADelete(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		held := configMap("a")
		held.Finalizers = []string{"example.com/hold"}
		w.Create(held)
		w.Must(command.Change{Op: command.Delete, Key: key("a")})
		if got := w.Get(key("a")); got == nil || got.GetDeletionTimestamp() == nil {
			t.Fatalf("it did not wait: %v", got)
		}
		controltest.Update(w, key("a"), func(c *corev1.ConfigMap) { c.Finalizers = nil })
		w.Must(command.Change{Op: command.Delete, Key: key("a")})
		if w.Get(key("a")) != nil {
			t.Error("it stayed")
		}
	})
}

func TestAPurgeHeedsVersionsAndNoFinalizers(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		held := configMap("a")
		held.Finalizers = []string{"example.com/hold"}
		seen := w.Create(held)
		version, err := strconv.ParseUint(seen.GetResourceVersion(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		now := controltest.Update(w, key("a"), func(c *corev1.ConfigMap) { c.Data["a"] = "2" })
		purge := command.Change{Op: command.Purge, Key: key("a"), UID: now.UID, Version: version}
		if answer := w.Commit(purge); !apierrors.IsConflict(answer.Results[0].Err) {
			t.Errorf("of what has changed since: %v", answer.Results[0].Err)
		}
		if w.Get(key("a")) == nil {
			t.Fatal("and it went")
		}
		purge.Version++
		w.Must(purge)
		if w.Get(key("a")) != nil {
			t.Error("it stayed")
		}
	})
}

func TestWhatWasRefusedIsNotCarriedOutAfterAll(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Journal.SetFaults(model.Faults{NoRoom: 0.5})
		registry := w.System.NewLocalPID(actors.RegistryPath)
		for i := range 50 {
			name := fmt.Sprint("c", i)
			release := w.Journal.Hold() // so that the second comes while the first is under way
			var futures []interface{ Result() (any, error) }
			for range 2 { // the second is who lost patience with the first
				futures = append(futures, w.System.Root.RequestFuture(registry, &command.Commit{
					ID: name, Changes: []command.Change{{Op: command.Create, Key: key(name), Object: configMap(name)}},
				}, time.Minute))
			}
			synctest.Wait()
			release()
			w.Advance(time.Second)
			var refused []bool
			for _, f := range futures {
				answer, err := f.Result()
				if err != nil {
					t.Fatal(err)
				}
				refused = append(refused, answer.(*command.Committed).Err != nil)
			}
			if there := w.Get(key(name)) != nil; refused[0] == there || refused[1] == there {
				t.Fatalf("%s: refused %v, and it is there: %t", name, refused, there)
			}
		}
	})
}

func TestWhatTheJournalCannotHoldHoldsUpNobody(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		strange := configMap("strange")
		strange.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Thing", Name: "x", UID: "a\x00b"}}
		if answer := w.Commit(command.Change{Op: command.Create, Key: key("strange"), Object: strange}); answer.Err != nil || !apierrors.IsBadRequest(answer.Results[0].Err) {
			t.Errorf("an owner with a zero byte: %+v", answer)
		}
		event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a\x00b"}}
		if answer := w.Commit(command.Change{Op: command.Create, Key: api.KeyOf(event), Object: event}); answer.Err != nil || !apierrors.IsBadRequest(answer.Results[0].Err) {
			t.Errorf("a name with a zero byte: %+v", answer)
		}
		huge := configMap("huge")
		huge.Data["a"] = strings.Repeat("x", 4<<20)
		if answer := w.Commit(command.Change{Op: command.Create, Key: key("huge"), Object: huge}); answer.Err != nil || !apierrors.IsRequestEntityTooLargeError(answer.Results[0].Err) {
			t.Errorf("an object of 4 MB: %+v", answer.Err)
		}
		w.Create(configMap("after"))
	})
}

func TestACommitTooLargeForOneEntryIsDoneInParts(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		var left []command.Change
		for i := range 20 {
			c := configMap(fmt.Sprint("c", i))
			c.Data["a"] = strings.Repeat("x", 1<<20)
			left = append(left, command.Change{Op: command.Create, Key: api.KeyOf(c), Object: c})
		}
		for rounds := 0; len(left) > 0; rounds++ {
			answer := w.Commit(left...)
			if answer.Err != nil || rounds > 4 {
				t.Fatalf("round %d, %d left: %v", rounds, len(left), answer.Err)
			}
			var refused []command.Change
			for i, r := range answer.Results {
				if apierrors.IsTooManyRequests(r.Err) {
					refused = append(refused, left[i])
				} else if r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			left = refused
		}
		if w.Restarts(actors.RegistryPath) != 0 || len(w.Names("configmaps", "default")) != 20 {
			t.Error("not all is there, or the registry failed")
		}
	})
}

func TestASyncIsNotAnsweredWhileAnOutcomeIsUnknown(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Journal.Lose(model.Late)
		if answer := w.Commit(command.Change{Op: command.Create, Key: key("a"), Object: configMap("a")}); !errors.Is(answer.Err, journal.ErrUnknownOutcome) {
			t.Fatal(answer.Err)
		}
		synced := w.System.Root.RequestFuture(w.System.NewLocalPID(actors.RegistryPath), &command.Sync{}, time.Second)
		if answer, err := synced.Result(); err == nil {
			t.Errorf("got %T, and the write may still come", answer)
		}
	})
}

func TestASyncAskedAgainIsAnsweredOnce(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		release := w.Journal.Hold()
		registry := w.System.NewLocalPID(actors.RegistryPath)
		w.System.Root.Send(registry, &command.Commit{Changes: []command.Change{{Op: command.Create, Key: key("a"), Object: configMap("a")}}})
		answers := 0
		asker := w.System.Root.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
			switch ctx.Message().(type) {
			case string:
				ctx.Request(registry, &command.Sync{})
			case *command.Synced:
				answers++
			}
		}))
		synctest.Wait()
		for range 5 {
			w.System.Root.Send(asker, "ask")
		}
		w.Advance(time.Second)
		if answers != 0 {
			t.Error("answered while a batch was under way")
		}
		release()
		w.Advance(time.Second)
		if answers != 1 {
			t.Errorf("%d answers", answers)
		}
	})
}
