// Package pods follows each pod from its creation to its deletion on the side
// of the control plane. Placing is the scheduler's, running is the machine's;
// what neither can do happens here: the end of a pod that never had a machine,
// or whose machine is gone
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection).
// One actor for each pod, in the shell of package reconcile.
package pods

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/reconcile"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// quarantine is how long a node may be missing before its pods are given up, as in Kubernetes.
const quarantine = 40 * time.Second

// New returns what decides for the pod named key.
func New(hub *journal.Hub, key api.Key) func(mailbox.Work) reconcile.Decider {
	return func(mailbox.Work) reconcile.Decider { return &state{hub: hub, key: key} }
}

// Route tells which pods a node's coming or going concerns.
func Route(hub *journal.Hub) func(journal.Changed) []api.Key {
	return func(c journal.Changed) (keys []api.Key) {
		if c.Old != nil && c.New != nil {
			return nil
		}
		record := c.New
		if record == nil {
			record = c.Old
		}
		if record.Key.Resource != "nodes" {
			return nil
		}
		for _, pod := range hub.Index("node="+record.Key.Name, "pods") {
			keys = append(keys, pod.Key)
		}
		return keys
	}
}

// state is what one pod's actor knows beside the hub.
type state struct {
	hub    *journal.Hub
	key    api.Key
	lostAt time.Time // since when its node has been missing
}

// Decide implements [reconcile.Decider].
func (s *state) Decide(now time.Time) reconcile.Decision {
	record, ok := s.hub.Get(s.key)
	if !ok {
		return reconcile.Decision{}
	}
	pod := reconcile.Object(record).(*corev1.Pod)
	remove := command.Change{Op: command.Delete, Key: s.key, UID: pod.UID, Version: record.Seq}
	if pod.Spec.NodeName == "" {
		s.lostAt = time.Time{}
		if pod.DeletionTimestamp != nil && len(pod.Finalizers) == 0 {
			return reconcile.Decision{Changes: []command.Change{remove}} // no machine has it to stop
		}
		return reconcile.Decision{}
	}
	if _, ok := s.hub.Get(api.Key{Resource: "nodes", Name: pod.Spec.NodeName}); ok {
		s.lostAt = time.Time{}
		return reconcile.Decision{}
	}
	if s.lostAt.IsZero() {
		s.lostAt = now
	}
	if rest := quarantine - now.Sub(s.lostAt); rest > 0 {
		return reconcile.Decision{Again: rest}
	}
	switch {
	case pod.DeletionTimestamp != nil || metav1.GetControllerOf(pod) != nil:
		if len(pod.Finalizers) > 0 && pod.DeletionTimestamp != nil {
			return reconcile.Decision{}
		}
		return reconcile.Decision{Changes: []command.Change{remove}}
	case pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed:
		failed := pod.DeepCopy()
		failed.Status.Phase = corev1.PodFailed
		failed.Status.Reason, failed.Status.Message = "NodeLost", "Node "+pod.Spec.NodeName+" which was running pod "+pod.Name+" is gone"
		for i := range failed.Status.Conditions {
			if c := &failed.Status.Conditions[i]; c.Type == corev1.PodReady || c.Type == corev1.ContainersReady {
				c.Status, c.Reason, c.LastTransitionTime = corev1.ConditionFalse, "NodeLost", metav1.NewTime(now.Truncate(time.Second))
			}
		}
		return reconcile.Decision{Changes: []command.Change{
			{Op: command.Status, Key: s.key, Object: failed, UID: pod.UID, Version: record.Seq},
			command.Event(pod, reconcile.Lookup(s.hub), "pod-garbage-collector", "", corev1.EventTypeWarning, "NodeLost", failed.Status.Message, now),
		}}
	}
	return reconcile.Decision{}
}

// Answered implements [reconcile.Decider]; what was refused is decided anew.
func (s *state) Answered([]command.Change, []command.Result, error) {}
