// Package replicationcontrollers keeps the number of pods that a replication
// controller asks for: it adopts what its selector matches and nobody owns,
// lets go what no longer matches, makes what is missing and deletes what is too
// much, the least useful first
// (https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller/).
// One actor for each controller, in the shell of package reconcile.
package replicationcontrollers

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/reconcile"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

const (
	component  = "replication-controller"
	batchPods  = 500     // pods made or deleted by one commit
	batchBytes = 4 << 20 // of them: the registry refuses what no entry of the journal holds
	retryAfter = time.Second
)

// New returns what decides for the controller named key.
func New(hub *journal.Hub, key api.Key) func(mailbox.Work) reconcile.Decider {
	return func(mailbox.Work) reconcile.Decider { return &state{hub: hub, key: key} }
}

// Route tells which controllers a change of a pod concerns.
func Route(hub *journal.Hub) func(journal.Changed) []api.Key {
	return func(c journal.Changed) []api.Key {
		var keys []api.Key
		for _, record := range []*journal.Record{c.Old, c.New} {
			pod := podOf(record)
			if pod == nil {
				continue
			}
			if owner := metav1.GetControllerOf(pod); owner != nil {
				if owner.Kind == "ReplicationController" {
					keys = append(keys, api.Key{Resource: "replicationcontrollers", Namespace: pod.Namespace, Name: owner.Name})
				}
				continue
			}
			for _, record := range hub.List("replicationcontrollers", pod.Namespace) { // an orphan: whoever matches it
				if rc := rcOf(record); rc != nil && labels.SelectorFromSet(rc.Spec.Selector).Matches(labels.Set(pod.Labels)) {
					keys = append(keys, record.Key)
				}
			}
		}
		return keys
	}
}

// state is what one controller's actor knows beside the hub.
type state struct {
	hub     *journal.Hub
	key     api.Key
	failure *corev1.ReplicationControllerCondition // the last create or delete that was refused
	notes   []note                                 // events to write with the next commit
	held    bool                                   // a refusal was answered: wait before trying again
}

type note struct{ kind, reason, message string }

// Decide implements [reconcile.Decider].
func (s *state) Decide(now time.Time) reconcile.Decision {
	record, ok := s.hub.Get(s.key)
	if !ok {
		return reconcile.Decision{}
	}
	rc := rcOf(record)
	if rc == nil {
		return reconcile.Decision{}
	}
	var d reconcile.Decision
	for _, n := range s.notes {
		d.Changes = append(d.Changes, command.Event(rc, reconcile.Lookup(s.hub), component, "", n.kind, n.reason, n.message, now))
	}
	s.notes = nil
	mine, claims := s.claim(rc)
	d.Changes = append(d.Changes, claims...)
	if len(claims) == 0 && rc.DeletionTimestamp == nil && !s.held {
		d.Changes = append(d.Changes, s.scale(rc, mine, now)...)
	}
	if s.held {
		s.held, d.Again = false, retryAfter
	}
	status, soon := s.status(rc, mine, now)
	if !equality.Semantic.DeepEqual(status, rc.Status) {
		update := rc.DeepCopy()
		update.Status = status
		d.Changes = append(d.Changes, command.Change{Op: command.Status, Key: s.key, Object: update, UID: rc.UID})
	}
	d.Again = cmp.Or(d.Again, soon)
	return d
}

// Answered implements [reconcile.Decider].
func (s *state) Answered(done []command.Change, results []command.Result, err error) {
	for i, c := range done {
		if c.Key.Resource != "pods" {
			continue
		}
		failed := err
		if err == nil {
			failed = results[i].Err
		}
		name := c.Key.Name
		if failed == nil && results[i].Object != nil {
			name = results[i].Object.GetName()
		}
		switch {
		case c.Op == command.Create && failed == nil:
			s.failure = nil
			s.notes = append(s.notes, note{corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: " + name})
		case c.Op == command.Create:
			s.refused("FailedCreate", "Error creating: "+failed.Error())
		case deletes(c) && failed == nil:
			s.failure = nil
			s.notes = append(s.notes, note{corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: " + name})
		case deletes(c) && !apierrors.IsConflict(failed) && !apierrors.IsNotFound(failed):
			s.refused("FailedDelete", "Error deleting: "+failed.Error())
		}
	}
}

func deletes(c command.Change) bool {
	return c.Op == command.Delete || c.Op == command.Update && c.Object.GetDeletionTimestamp() != nil
}

func (s *state) refused(reason, message string) {
	s.held = true
	if s.failure != nil && s.failure.Message == message {
		return // known; tried again in vain
	}
	s.notes = append(s.notes, note{corev1.EventTypeWarning, reason, message})
	s.failure = &corev1.ReplicationControllerCondition{
		Type: corev1.ReplicationControllerReplicaFailure, Status: corev1.ConditionTrue, Reason: reason, Message: message,
	}
}

// claim sorts out which pods are the controller's, and what must be written so
// that their ownerReferences say so.
func (s *state) claim(rc *corev1.ReplicationController) (mine []*corev1.Pod, changes []command.Change) {
	selector := labels.SelectorFromSet(rc.Spec.Selector)
	hub := s.hub.Snapshot() // one state: a pod must not be in neither list, nor in both
	records := slices.Concat(hub.Index(api.OwnedBy(rc.UID), "pods"), hub.Index(api.Orphans(rc.Namespace), "pods"))
	slices.SortFunc(records, func(a, b *journal.Record) int { return a.Key.Compare(b.Key) })
	for _, record := range slices.Compact(records) {
		pod := podOf(record)
		if pod == nil || pod.Namespace != rc.Namespace {
			continue
		}
		matches := selector.Matches(labels.Set(pod.Labels))
		owner := metav1.GetControllerOf(pod)
		switch {
		case owner != nil && owner.UID == rc.UID && matches:
			mine = append(mine, pod)
		case owner != nil && owner.UID == rc.UID && pod.DeletionTimestamp == nil:
			freed := pod.DeepCopy()
			freed.OwnerReferences = slices.DeleteFunc(freed.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == rc.UID })
			changes = append(changes, update(record, freed))
		case owner == nil && matches && pod.DeletionTimestamp == nil && rc.DeletionTimestamp == nil:
			adopted := pod.DeepCopy()
			adopted.OwnerReferences = append(adopted.OwnerReferences, *ref(rc))
			changes = append(changes, update(record, adopted))
		}
	}
	return mine, changes
}

func update(record *journal.Record, object api.Object) command.Change {
	return command.Change{Op: command.Update, Key: record.Key, Object: object, UID: object.GetUID(), Version: record.Seq}
}

func ref(rc *corev1.ReplicationController) *metav1.OwnerReference {
	return metav1.NewControllerRef(rc, corev1.SchemeGroupVersion.WithKind("ReplicationController"))
}

// scale makes what is missing or deletes what is too much.
func (s *state) scale(rc *corev1.ReplicationController, mine []*corev1.Pod, now time.Time) (changes []command.Change) {
	active := active(mine)
	wanted := int(*rc.Spec.Replicas)
	size := 0
	for range min(wanted-len(active), batchPods) {
		pod, err := api.NewPod(rc.Namespace, rc.Spec.Template, ref(rc))
		if err != nil {
			s.refused("FailedCreate", "Error creating: "+err.Error())
			break
		}
		if size == 0 { // that of all of them
			size = encodedSize(pod)
		}
		if len(changes) > 0 && (len(changes)+1)*size > batchBytes {
			break
		}
		changes = append(changes, command.Change{Op: command.Create, Key: api.KeyOf(pod), Object: pod})
	}
	if surplus := len(active) - wanted; surplus > 0 {
		size = 0
		for i, pod := range victims(active, mine)[:min(surplus, batchPods)] {
			if size += encodedSize(pod); i > 0 && size > batchBytes {
				break
			}
			change := command.Change{Op: command.Delete, Key: api.KeyOf(pod), UID: pod.UID, Version: version(pod)}
			if object, gone := api.BeginDelete(pod, nil, now); !gone {
				change.Op, change.Object = command.Update, object
			}
			changes = append(changes, change)
		}
	}
	return changes
}

// encodedSize is about what the journal stores of a pod; 0 of one that cannot
// be encoded, which the registry says.
func encodedSize(pod *corev1.Pod) int {
	value, err := api.Encode(pod)
	if err != nil {
		return 0
	}
	return len(value)
}

// active leaves out what has ended or is on its way out.
func active(pods []*corev1.Pod) (out []*corev1.Pod) {
	for _, pod := range pods {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed && pod.DeletionTimestamp == nil {
			out = append(out, pod)
		}
	}
	return out
}

// victims orders pods from the least to the most useful, as Kubernetes does:
// not yet placed, not running, not ready, cheaper by annotation, on a node with
// more of them, ready for less time, restarted more often, newer.
func victims(pods, all []*corev1.Pod) []*corev1.Pod {
	together := map[string]int{}
	for _, pod := range active(all) {
		if pod.Spec.NodeName != "" {
			together[pod.Spec.NodeName]++
		}
	}
	order := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}
	return slices.SortedStableFunc(slices.Values(pods), func(a, b *corev1.Pod) int {
		return cmp.Or(
			cmp.Compare(flag(a.Spec.NodeName != ""), flag(b.Spec.NodeName != "")),
			cmp.Compare(order[a.Status.Phase], order[b.Status.Phase]),
			cmp.Compare(flag(ready(a) != nil), flag(ready(b) != nil)),
			cmp.Compare(cost(a), cost(b)),
			cmp.Compare(together[b.Spec.NodeName], together[a.Spec.NodeName]),
			readySince(b).Compare(readySince(a)),
			cmp.Compare(restarts(b), restarts(a)),
			b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
			strings.Compare(a.Name, b.Name),
		)
	})
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ready is the pod's Ready condition if it is true.
func ready(pod *corev1.Pod) *corev1.PodCondition {
	for i, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func readySince(pod *corev1.Pod) time.Time {
	if c := ready(pod); c != nil {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

func cost(pod *corev1.Pod) int32 {
	n, err := strconv.ParseInt(pod.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0 // the API refuses a wrong one
	}
	return int32(n)
}

func restarts(pod *corev1.Pod) (most int32) {
	for _, c := range pod.Status.ContainerStatuses {
		most = max(most, c.RestartCount)
	}
	return most
}

// status is what the controller's status should say, and when it will change by itself.
func (s *state) status(rc *corev1.ReplicationController, mine []*corev1.Pod, now time.Time) (corev1.ReplicationControllerStatus, time.Duration) {
	var soon time.Duration
	status := corev1.ReplicationControllerStatus{ObservedGeneration: rc.Generation}
	template := labels.SelectorFromSet(rc.Spec.Template.Labels)
	settle := time.Duration(rc.Spec.MinReadySeconds) * time.Second
	for _, pod := range active(mine) {
		status.Replicas++
		if template.Matches(labels.Set(pod.Labels)) {
			status.FullyLabeledReplicas++
		}
		c := ready(pod)
		if c == nil {
			continue
		}
		status.ReadyReplicas++
		if rest := settle - now.Sub(c.LastTransitionTime.Time); rest <= 0 || settle == 0 {
			status.AvailableReplicas++
		} else if soon == 0 || rest < soon {
			soon = rest
		}
	}
	for _, c := range rc.Status.Conditions {
		if c.Type != corev1.ReplicationControllerReplicaFailure {
			status.Conditions = append(status.Conditions, c)
		} else if s.failure != nil && c.Reason == s.failure.Reason {
			s.failure.LastTransitionTime = c.LastTransitionTime
		}
	}
	if s.failure != nil {
		if s.failure.LastTransitionTime.IsZero() {
			s.failure.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		}
		status.Conditions = append(status.Conditions, *s.failure)
	}
	return status, soon
}

func version(o api.Object) uint64 {
	n, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		panic(fmt.Errorf("resourceVersion of %s: %w", o.GetName(), err))
	}
	return n
}

func podOf(record *journal.Record) *corev1.Pod {
	pod, _ := reconcile.Object(record).(*corev1.Pod)
	return pod
}

func rcOf(record *journal.Record) *corev1.ReplicationController {
	rc, _ := reconcile.Object(record).(*corev1.ReplicationController)
	return rc
}
