// Package controltest runs the whole control tree in virtual time, on the
// journal's model, for tests of its actors.
package controltest

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/actors"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/model"
)

// settleTime is more than all the moments that the registry takes to gather
// what follows from one commit, and than the rests after two conflicts: when
// another writer came first, an actor decides again (see reconcile).
const settleTime = 200 * time.Millisecond

// World is a control tree at work.
type World struct {
	T       *testing.T
	Journal *model.Journal
	Tree    *supervise.Running
	System  *actor.ActorSystem
	ids     int
}

// Run starts the tree inside a time bubble and hands it to body.
func Run(t *testing.T, body func(w *World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		w := &World{T: t, Journal: model.New(model.Options{Decode: api.Decode}), System: supervise.NewSystem(log)}
		tree, err := supervise.Start(w.System, actors.Control(actors.ControlDeps{
			System: w.System, Journal: w.Journal, Epoch: reign(w.Journal), Kernel: mailbox.Real(), Log: log,
			Seal:    func(_ api.Key, value []byte) []byte { return value },
			PodCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		}), supervise.Options{Log: log, Fell: func(err error) { t.Errorf("the control tree fell: %v", err) }})
		if err != nil {
			t.Fatal(err)
		}
		w.Tree = tree
		synctest.Wait()
		body(w)
		tree.Stop()
		w.System.Shutdown()
	})
}

// Advance lets d of virtual time pass.
func (w *World) Advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Commit sends changes under a new ID and waits for the answer.
func (w *World) Commit(changes ...command.Change) *command.Committed {
	w.T.Helper()
	w.ids++
	return w.CommitAs("test#"+strconv.Itoa(w.ids), changes...)
}

// CommitAs sends changes under the given ID and waits for the answer.
func (w *World) CommitAs(id string, changes ...command.Change) *command.Committed {
	w.T.Helper()
	future := w.System.Root.RequestFuture(w.System.NewLocalPID(actors.RegistryPath), &command.Commit{ID: id, Actor: "test", Changes: changes}, time.Minute)
	answer, err := future.Result()
	if err != nil {
		w.T.Fatalf("commit %s: %v", id, err)
	}
	w.Advance(settleTime)
	return answer.(*command.Committed)
}

// Must sends one change, fails the test if it is refused, and returns the object.
func (w *World) Must(change command.Change) api.Object {
	w.T.Helper()
	answer := w.Commit(change)
	if answer.Err != nil {
		w.T.Fatalf("%s: %v", change.Key, answer.Err)
	}
	if err := answer.Results[0].Err; err != nil {
		w.T.Fatalf("%s: %v", change.Key, err)
	}
	return answer.Results[0].Object
}

// Create fills in, checks and stores an object, as the door does for a client.
func (w *World) Create(object api.Object) api.Object {
	w.T.Helper()
	prepared, err := api.Prepare(object)
	if err != nil {
		w.T.Fatal(err)
	}
	return w.Must(command.Change{Op: command.Create, Key: api.KeyOf(prepared), Object: prepared})
}

// Update replaces the object under key by what change makes of a copy.
func Update[T api.Object](w *World, key api.Key, change func(T)) T {
	w.T.Helper()
	object := w.Get(key)
	if object == nil {
		w.T.Fatalf("update %s: it is not there", key)
	}
	object = object.DeepCopyObject().(api.Object)
	change(object.(T))
	return w.Must(command.Change{Op: command.Update, Key: key, Object: object}).(T)
}

// Delete begins the deletion of an object as a client's request does.
func (w *World) Delete(key api.Key) {
	w.T.Helper()
	object := w.Get(key)
	if object == nil {
		w.T.Fatalf("delete %s: it is not there", key)
	}
	updated, gone := api.BeginDelete(object, nil, time.Now())
	if gone {
		w.Must(command.Change{Op: command.Delete, Key: key})
	} else {
		w.Must(command.Change{Op: command.Update, Key: key, Object: updated})
	}
}

// Get reads an object, nil if it is not there.
func (w *World) Get(key api.Key) api.Object {
	w.T.Helper()
	record, ok := w.Journal.Hub().Get(key)
	if !ok {
		return nil
	}
	object, err := record.Object()
	if err != nil {
		w.T.Fatalf("read %s: %v", key, err)
	}
	return object
}

// List reads the objects of a resource in a namespace, in the order of their names.
func List[T api.Object](w *World, resource, namespace string) (objects []T) {
	w.T.Helper()
	for _, record := range w.Journal.Hub().List(resource, namespace) {
		object, err := record.Object()
		if err != nil {
			w.T.Fatalf("read %s: %v", record.Key, err)
		}
		objects = append(objects, object.(T))
	}
	return objects
}

// Names reads the names of the objects of a resource in a namespace.
func (w *World) Names(resource, namespace string) (names []string) {
	for _, record := range w.Journal.Hub().List(resource, namespace) {
		names = append(names, record.Key.Name)
	}
	slices.Sort(names)
	return names
}

// Fail makes the actor at path panic, and waits until it is back.
func (w *World) Fail(path string) {
	w.T.Helper()
	if err := w.Tree.Fail(path); err != nil {
		w.T.Fatal(err)
	}
	synctest.Wait()
}

// Restarts is how often the actor at path was restarted.
func (w *World) Restarts(path string) int {
	for _, s := range w.Tree.Actors() {
		if s.Path == path {
			return s.Restarts
		}
	}
	w.T.Fatalf("no actor at %s", path)
	return 0
}

// Reasons are the reasons of the events about an object, with their counts.
func (w *World) Reasons(namespace, name string) (reasons []string) {
	for _, e := range List[*corev1.Event](w, "events", namespace) {
		if e.InvolvedObject.Name == name {
			reasons = append(reasons, fmt.Sprintf("%s×%d", e.Reason, e.Count))
		}
	}
	slices.Sort(reasons)
	return reasons
}

// reign is the epoch in which the journal leads.
func reign(j *model.Journal) (epoch journal.Epoch) {
	j.Leadership(func(l journal.Leadership) { epoch = l.Epoch })
	return epoch
}
