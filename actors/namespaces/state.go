// Package namespaces empties a namespace that is being deleted and then lets it
// go (https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/),
// and makes the ones that every cluster has. One actor for each namespace and
// one for the initial ones, in the shell of package reconcile.
package namespaces

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/reconcile"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

const batchObjects = 500

// New returns what decides for the namespace named key.
func New(hub *journal.Hub, key api.Key) func(mailbox.Work) reconcile.Decider {
	return func(mailbox.Work) reconcile.Decider { return &state{hub: hub, key: key} }
}

// Also lists the resources whose changes a namespace on its way out waits for.
func Also() (resources []string) {
	for _, k := range api.Kinds() {
		if k.Namespaced {
			resources = append(resources, k.GroupResource().String())
		}
	}
	return resources
}

// Route tells which namespace a change of its content concerns.
func Route(hub *journal.Hub) func(journal.Changed) []api.Key {
	return func(c journal.Changed) []api.Key {
		record := c.New
		if record == nil {
			record = c.Old
		}
		key := api.Key{Resource: "namespaces", Name: record.Key.Namespace}
		if ns, ok := hub.Get(key); ok && reconcile.Object(ns).GetDeletionTimestamp() != nil {
			return []api.Key{key}
		}
		return nil
	}
}

type state struct {
	hub *journal.Hub
	key api.Key
}

// Decide implements [reconcile.Decider].
func (s *state) Decide(now time.Time) reconcile.Decision {
	record, ok := s.hub.Get(s.key)
	if !ok {
		return reconcile.Decision{}
	}
	ns := reconcile.Object(record).(*corev1.Namespace)
	if ns.DeletionTimestamp == nil {
		return reconcile.Decision{}
	}
	changes, left, waits := s.empty(now)
	if len(changes) > 0 {
		return reconcile.Decision{Changes: changes}
	}
	update := ns.DeepCopy()
	if len(left) == 0 {
		update.Spec.Finalizers = slices.DeleteFunc(update.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
		if len(update.Spec.Finalizers) == 0 && len(update.Finalizers) == 0 {
			return reconcile.Decision{Changes: []command.Change{{Op: command.Delete, Key: s.key, UID: ns.UID, Version: record.Seq}}}
		}
	}
	update.Status.Phase = corev1.NamespaceTerminating
	say(update, now, left, waits)
	change := command.Change{Op: command.Update, Key: s.key, Object: update, UID: ns.UID, Version: record.Seq}
	return reconcile.Decision{Changes: []command.Change{change}}.Unless(ns, update)
}

// Answered implements [reconcile.Decider]; what was refused is decided anew.
func (s *state) Answered([]command.Change, []command.Result, error) {}

// empty deletes what is in the namespace and counts what has not gone yet, by
// resource and by the finalizer that it waits for.
func (s *state) empty(now time.Time) (changes []command.Change, left, waits map[string]int) {
	left, waits = map[string]int{}, map[string]int{}
	for _, resource := range Also() {
		for _, record := range s.hub.List(resource, s.key.Name) {
			object := reconcile.Object(record)
			left[resource]++
			for _, f := range object.GetFinalizers() {
				waits[f]++
			}
			if len(changes) == batchObjects {
				continue
			}
			change := command.Change{Op: command.Delete, Key: record.Key, UID: object.GetUID(), Version: record.Seq}
			updated, gone := api.BeginDelete(object, nil, now)
			switch {
			case gone:
			case updated == object:
				continue // under way
			default:
				change.Op, change.Object = command.Update, updated
			}
			changes = append(changes, change)
		}
	}
	return changes, left, waits
}

// say sets the conditions that tell what a namespace waits for, in the words
// of Kubernetes' own controller.
func say(ns *corev1.Namespace, now time.Time, left, waits map[string]int) {
	var resources, finalizers []string
	for _, name := range slices.Sorted(maps.Keys(left)) {
		gr := schema.ParseGroupResource(name)
		resources = append(resources, fmt.Sprintf("%s.%s has %d resource instances", gr.Resource, gr.Group, left[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(waits)) {
		finalizers = append(finalizers, fmt.Sprintf("%s in %d resource instances", name, waits[name]))
	}
	for _, c := range []struct {
		kind                  corev1.NamespaceConditionType
		fine, finally         string // reason and message when nothing remains
		remains, what, prefix string // when something does
	}{
		{kind: corev1.NamespaceDeletionDiscoveryFailure, fine: "ResourcesDiscovered", finally: "All resources successfully discovered"},
		{kind: corev1.NamespaceDeletionGVParsingFailure, fine: "ParsedGroupVersions", finally: "All legacy kube types successfully parsed"},
		{kind: corev1.NamespaceDeletionContentFailure, fine: "ContentDeleted", finally: "All content successfully deleted, may be waiting on finalization"},
		{corev1.NamespaceContentRemaining, "ContentRemoved", "All content successfully removed", "SomeResourcesRemain", strings.Join(resources, ", "), "Some resources are remaining: "},
		{corev1.NamespaceFinalizersRemaining, "ContentHasNoFinalizers", "All content-preserving finalizers finished", "SomeFinalizersRemain", strings.Join(finalizers, ", "), "Some content in the namespace has finalizers remaining: "},
	} {
		is := corev1.NamespaceCondition{Type: c.kind, Status: corev1.ConditionFalse, Reason: c.fine, Message: c.finally, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second))}
		if c.what != "" {
			is.Status, is.Reason, is.Message = corev1.ConditionTrue, c.remains, c.prefix+c.what
		}
		set(ns, is)
	}
}

// set keeps the time of a condition whose status stays.
func set(ns *corev1.Namespace, c corev1.NamespaceCondition) {
	for i, was := range ns.Status.Conditions {
		if was.Type == c.Type {
			if was.Status == c.Status {
				c.LastTransitionTime = was.LastTransitionTime
			}
			ns.Status.Conditions[i] = c
			return
		}
	}
	ns.Status.Conditions = append(ns.Status.Conditions, c)
}

// initial are the namespaces that every cluster has.
var initial = []string{metav1.NamespaceDefault, "kube-node-lease", metav1.NamespacePublic, metav1.NamespaceSystem}

// Initial returns what decides about the initial namespaces. It follows namespaces.
func Initial(hub *journal.Hub) func(mailbox.Work) reconcile.Decider {
	return func(mailbox.Work) reconcile.Decider { return &founder{hub: hub} }
}

type founder struct{ hub *journal.Hub }

// Reset implements [reconcile.Follower].
func (f *founder) Reset() {}

// Changed implements [reconcile.Follower].
func (f *founder) Changed([]journal.Changed) {}

// Decide implements [reconcile.Decider].
func (f *founder) Decide(time.Time) (d reconcile.Decision) {
	for _, name := range initial {
		key := api.Key{Resource: "namespaces", Name: name}
		if _, ok := f.hub.Get(key); ok {
			continue
		}
		ns, err := api.Prepare(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if err != nil {
			panic(fmt.Errorf("initial namespace %s: %w", name, err))
		}
		d.Changes = append(d.Changes, command.Change{Op: command.Create, Key: key, Object: ns})
	}
	return d
}

// Answered implements [reconcile.Decider]; what was refused is decided anew.
func (f *founder) Answered([]command.Change, []command.Result, error) {}
