// Package nodes keeps a node's taints in step with its conditions, so that the
// scheduler sends nothing to a machine that is not ready or is cordoned
// (https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/).
// One actor for each node, in the shell of package reconcile.
package nodes

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/reconcile"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// New returns what decides for the node named key.
func New(hub *journal.Hub, key api.Key) func(mailbox.Work) reconcile.Decider {
	return func(mailbox.Work) reconcile.Decider { return &state{hub: hub, key: key} }
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
	node := reconcile.Object(record).(*corev1.Node)
	ready := corev1.ConditionUnknown
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			ready = c.Status
		}
	}
	update := node.DeepCopy()
	keep(update, corev1.TaintNodeNotReady, ready == corev1.ConditionFalse, now)
	keep(update, corev1.TaintNodeUnreachable, ready == corev1.ConditionUnknown, now)
	keep(update, corev1.TaintNodeUnschedulable, node.Spec.Unschedulable, now)
	if len(update.Spec.Taints) == len(node.Spec.Taints) && slices.EqualFunc(update.Spec.Taints, node.Spec.Taints, func(a, b corev1.Taint) bool { return a.MatchTaint(&b) }) {
		return reconcile.Decision{}
	}
	return reconcile.Decision{Changes: []command.Change{{Op: command.Update, Key: s.key, Object: update, UID: node.UID, Version: record.Seq}}}
}

// keep adds or removes one of the taints that this actor looks after.
func keep(node *corev1.Node, key string, wanted bool, now time.Time) {
	i := slices.IndexFunc(node.Spec.Taints, func(t corev1.Taint) bool {
		return t.Key == key && t.Effect == corev1.TaintEffectNoSchedule
	})
	stamp := metav1.NewTime(now.Truncate(time.Second))
	switch {
	case wanted && i < 0:
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule, TimeAdded: &stamp})
	case !wanted && i >= 0:
		node.Spec.Taints = slices.Delete(node.Spec.Taints, i, i+1)
	}
}

// Answered implements [reconcile.Decider]; what was refused is decided anew.
func (s *state) Answered([]command.Change, []command.Result, error) {}
