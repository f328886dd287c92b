// Package garbage deletes what nobody needs any more: objects whose owners are
// all gone, and events after an hour. It also carries out foreground and orphan
// deletion (https://kubernetes.io/docs/concepts/architecture/garbage-collection/).
// One actor, in the shell of package reconcile.
package garbage

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/reconcile"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

const (
	component    = "garbage-collector-controller"
	eventsKept   = time.Hour
	batchObjects = 500
)

// Resources are what the collector follows: every kind.
func Resources() (resources []string) {
	for _, k := range api.Kinds() {
		resources = append(resources, k.GroupResource().String())
	}
	return resources
}

// New returns what decides about garbage.
func New(hub *journal.Hub) func(mailbox.Work) reconcile.Decider {
	return func(mailbox.Work) reconcile.Decider { return &state{hub: hub} }
}

// state is what has to be looked at.
type state struct {
	hub    *journal.Hub
	check  map[api.Key]struct{} // may have lost an owner, or waits for its dependents
	events []api.Key            // about in the order of their age
	due    time.Time            // before this none of them has to go
}

// Reset implements [reconcile.Follower].
func (s *state) Reset() {
	s.check, s.events, s.due = map[api.Key]struct{}{}, nil, time.Time{}
	born := map[api.Key]time.Time{}
	for _, resource := range Resources() {
		for _, record := range s.hub.List(resource, "") {
			object := reconcile.Object(record)
			if resource == "events" {
				s.events = append(s.events, record.Key)
				born[record.Key] = object.GetCreationTimestamp().Time
				continue
			}
			s.see(record.Key, object)
		}
	}
	slices.SortStableFunc(s.events, func(a, b api.Key) int { return born[a].Compare(born[b]) })
}

// Changed implements [reconcile.Follower].
func (s *state) Changed(changes []journal.Changed) {
	for _, c := range changes {
		switch {
		case c.New != nil && c.New.Key.Resource == "events":
			if c.Old == nil {
				s.events = append(s.events, c.New.Key)
			}
		case c.New != nil:
			now := reconcile.Object(c.New)
			s.see(c.New.Key, now)
			if was := reconcile.Object(c.Old); was != nil && !equality.Semantic.DeepEqual(was.GetOwnerReferences(), now.GetOwnerReferences()) {
				s.owners(was) // they may wait for it no more
			}
		default:
			was := reconcile.Object(c.Old)
			delete(s.check, c.Old.Key)
			s.dependents(was.GetUID())
			s.owners(was)
		}
	}
}

// see notes what has to be looked at because key now holds object.
func (s *state) see(key api.Key, object api.Object) {
	if len(object.GetOwnerReferences()) > 0 || finalizes(object) != "" {
		s.check[key] = struct{}{}
	}
	if finalizes(object) != "" {
		s.dependents(object.GetUID())
	}
	if object.GetDeletionTimestamp() != nil {
		s.owners(object)
	}
}

// finalizes is the propagation that the deletion of object waits for: Foreground, Orphan or none.
func finalizes(object api.Object) string {
	if object.GetDeletionTimestamp() == nil {
		return ""
	}
	for _, f := range object.GetFinalizers() {
		if f == metav1.FinalizerDeleteDependents || f == metav1.FinalizerOrphanDependents {
			return f
		}
	}
	return ""
}

func (s *state) dependentsOf(uid types.UID) (records []*journal.Record) {
	for _, resource := range Resources() {
		records = append(records, s.hub.Index("owner="+string(uid), resource)...)
	}
	return records
}

// blocks tells whether object holds up the foreground deletion of its owner.
func blocks(object api.Object, owner types.UID) bool {
	return slices.ContainsFunc(object.GetOwnerReferences(), func(r metav1.OwnerReference) bool {
		return r.UID == owner && ptr.Deref(r.BlockOwnerDeletion, false)
	})
}

func (s *state) dependents(uid types.UID) {
	for _, record := range s.dependentsOf(uid) {
		s.check[record.Key] = struct{}{}
	}
}

// owners notes the owners of object that wait for their dependents.
func (s *state) owners(object api.Object) {
	for _, ref := range object.GetOwnerReferences() {
		if owner, known := s.owner(object, ref); known && owner != nil && finalizes(owner) != "" {
			s.check[api.KeyOf(owner)] = struct{}{}
		}
	}
}

// owner finds who an ownerReference names. It is nil when that is gone; an
// owner of a kind that Troupe does not have is not known, and never counts as gone.
func (s *state) owner(object api.Object, ref metav1.OwnerReference) (owner api.Object, known bool) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, false
	}
	for _, k := range api.Kinds() {
		if k.Kind != ref.Kind || k.Group != gv.Group {
			continue
		}
		namespace := ""
		if k.Namespaced {
			if namespace = object.GetNamespace(); namespace == "" {
				return nil, false // nothing in a namespace can own what is in none: it says nothing
			}
		}
		owner := reconcile.Lookup(s.hub)(k.Key(namespace, ref.Name))
		if owner == nil || owner.GetUID() != ref.UID {
			return nil, true
		}
		return owner, true
	}
	return nil, false
}

// strayed finds out whether the owner that is not where object looks for it
// stands in another namespace, which Kubernetes allows nobody to refer to.
func (s *state) strayed(object api.Object, ref metav1.OwnerReference) bool {
	for _, k := range api.Kinds() {
		if !k.Namespaced || k.Kind != ref.Kind || k.GroupVersion().String() != ref.APIVersion {
			continue
		}
		for _, ns := range s.hub.List("namespaces", "") {
			owner := reconcile.Lookup(s.hub)(k.Key(ns.Key.Name, ref.Name))
			if owner != nil && owner.GetUID() == ref.UID && owner.GetNamespace() != object.GetNamespace() {
				return true
			}
		}
	}
	return false
}

// Decide implements [reconcile.Decider].
func (s *state) Decide(now time.Time) reconcile.Decision {
	var d reconcile.Decision
	for _, key := range slices.SortedFunc(maps.Keys(s.check), api.Key.Compare) {
		if len(d.Changes) >= batchObjects {
			break
		}
		delete(s.check, key)
		if record, ok := s.hub.Get(key); ok {
			d.Changes = append(d.Changes, s.look(record, now)...)
		}
	}
	s.expire(now, &d)
	return d
}

// expire deletes the events that are old enough, and says when the next one is.
func (s *state) expire(now time.Time, d *reconcile.Decision) {
	if rest := s.due.Sub(now); rest > 0 {
		d.Again = rest
		return
	}
	defer func() { s.due = now.Add(d.Again) }()
	for range len(s.events) {
		if len(d.Changes) >= batchObjects {
			d.Again = 0
			return
		}
		record, ok := s.hub.Get(s.events[0])
		if !ok {
			s.events = s.events[1:]
			continue
		}
		e := reconcile.Object(record).(*corev1.Event)
		if rest := eventsKept - now.Sub(lastSeen(e)); rest > 0 {
			if now.Sub(e.CreationTimestamp.Time) < eventsKept {
				d.Again = rest // those behind are younger
				return
			}
			s.events = append(s.events[1:], s.events[0]) // repeated since: its turn comes again
			d.Again = eventsKept
			continue
		}
		d.Changes = append(d.Changes, command.Change{Op: command.Delete, Key: record.Key, UID: e.UID, Version: record.Seq})
		s.events = s.events[1:]
	}
}

func lastSeen(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}

// look decides about one object.
func (s *state) look(record *journal.Record, now time.Time) []command.Change {
	object := reconcile.Object(record)
	update := func(o api.Object) command.Change {
		return command.Change{Op: command.Update, Key: record.Key, Object: o, UID: object.GetUID(), Version: record.Seq}
	}
	if f := finalizes(object); f != "" {
		if changes := s.finalize(object, f); len(changes) > 0 {
			return changes
		}
		if f == metav1.FinalizerDeleteDependents && slices.ContainsFunc(s.dependentsOf(object.GetUID()), func(r *journal.Record) bool {
			return r.Key != record.Key && blocks(reconcile.Object(r), object.GetUID())
		}) {
			return nil // they are looked at themselves; the last one's end brings us back
		}
		freed := object.DeepCopyObject().(api.Object)
		freed.SetFinalizers(slices.DeleteFunc(freed.GetFinalizers(), func(x string) bool { return x == f }))
		changes := []command.Change{update(freed)}
		if len(freed.GetFinalizers()) == 0 && !finishedElsewhere(object) {
			changes = append(changes, command.Change{Op: command.Delete, Key: record.Key, UID: object.GetUID()})
		}
		return changes
	}
	refs := object.GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	var gone, going []types.UID
	var changes []command.Change
	for _, ref := range refs {
		owner, known := s.owner(object, ref)
		switch {
		case known && owner == nil:
			gone = append(gone, ref.UID)
		case owner != nil && finalizes(owner) == metav1.FinalizerDeleteDependents:
			going = append(going, ref.UID)
		}
		if owner == nil && s.strayed(object, ref) {
			said := command.Event(object, reconcile.Lookup(s.hub), component, "", corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
				fmt.Sprintf("ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
					ref.APIVersion, ref.Kind, object.GetNamespace(), ref.Name, ref.UID, object.GetNamespace()), now)
			if said.Op == command.Create { // not with every change of the object
				changes = append(changes, said)
			}
		}
	}
	switch {
	case len(gone)+len(going) == len(refs):
		if len(going) > 0 {
			object = s.foreground(object)
		}
		updated, now := api.BeginDelete(object, nil, now)
		if now {
			return append(changes, command.Change{Op: command.Delete, Key: record.Key, UID: object.GetUID(), Version: record.Seq})
		}
		if updated != object {
			return append(changes, update(updated))
		}
	case len(gone)+len(going) > 0: // others still own it
		kept := object.DeepCopyObject().(api.Object)
		kept.SetOwnerReferences(slices.DeleteFunc(kept.GetOwnerReferences(), func(r metav1.OwnerReference) bool {
			return slices.Contains(gone, r.UID) || slices.Contains(going, r.UID)
		}))
		return append(changes, update(kept))
	}
	return changes
}

// foreground is an object as it is to be deleted because an owner waits for
// it: if it has dependents, it waits for them in its turn. Where one of these
// waits already, they may stand in a circle: then no owner waits for it.
func (s *state) foreground(object api.Object) api.Object {
	dependents := s.dependentsOf(object.GetUID())
	if len(dependents) == 0 || object.GetDeletionTimestamp() != nil {
		return object
	}
	waits := object.DeepCopyObject().(api.Object)
	waits.SetFinalizers(append(slices.DeleteFunc(waits.GetFinalizers(), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
	}), metav1.FinalizerDeleteDependents))
	if slices.ContainsFunc(dependents, func(r *journal.Record) bool {
		return finalizes(reconcile.Object(r)) == metav1.FinalizerDeleteDependents
	}) {
		refs := waits.GetOwnerReferences()
		for i := range refs {
			refs[i].BlockOwnerDeletion = ptr.To(false)
		}
		waits.SetOwnerReferences(refs)
	}
	return waits
}

// finishedElsewhere tells whether more than finalizers stands between object
// and its end: a pod's machine stops it, and a namespace is emptied first.
func finishedElsewhere(object api.Object) bool {
	switch object.(type) {
	case *corev1.Pod, *corev1.Namespace:
		return true
	}
	return false
}

// finalize frees the dependents of an object that leaves them behind.
func (s *state) finalize(object api.Object, finalizer string) (changes []command.Change) {
	if finalizer != metav1.FinalizerOrphanDependents {
		return nil
	}
	for _, record := range s.dependentsOf(object.GetUID()) {
		if len(changes) == batchObjects {
			break
		}
		dependent := reconcile.Object(record).DeepCopyObject().(api.Object)
		dependent.SetOwnerReferences(slices.DeleteFunc(dependent.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == object.GetUID() }))
		changes = append(changes, command.Change{Op: command.Update, Key: record.Key, Object: dependent, UID: dependent.GetUID(), Version: record.Seq})
	}
	s.check[api.KeyOf(object)] = struct{}{} // look again once they are free
	return changes
}

// Answered implements [reconcile.Decider]: what was refused is looked at again.
func (s *state) Answered(done []command.Change, results []command.Result, err error) {
	for i, c := range done {
		if err == nil && results[i].Err == nil {
			continue
		}
		if c.Key.Resource == "events" {
			s.events, s.due = slices.Insert(s.events, 0, c.Key), time.Time{}
		} else {
			s.check[c.Key] = struct{}{}
		}
	}
}
