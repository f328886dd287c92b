package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BeginDelete is Kubernetes' rules of deletion. It answers gone when the
// object is to be removed from the registry now, and otherwise the object as it
// must be written: with a deletionTimestamp, so that whoever stands in
// the finalizers, or the machine that runs the pod, finishes the work. An
// object that is being deleted already, and by no later a time, comes back as
// it is, the same pointer: there is nothing to write.
//
// grace is the client's wish in seconds, nil for the object's own; only pods
// have any. A negative one counts as 1.
func BeginDelete(o Object, grace *int64, now time.Time) (updated Object, gone bool) {
	if n, ok := o.(*corev1.Namespace); ok {
		return beginDeleteNamespace(n, now)
	}
	period := int64(0)
	p, isPod := o.(*corev1.Pod)
	if isPod {
		period = podGrace(p, grace)
	}
	finalized := len(o.GetFinalizers()) == 0
	was, wasPeriod := o.GetDeletionTimestamp(), o.GetDeletionGracePeriodSeconds()
	switch {
	case was == nil:
		if period == 0 && finalized {
			return o, true
		}
		at := metav1.NewTime(now.Add(time.Duration(period) * time.Second).Truncate(time.Second))
		return deleting(o, at, period, o.GetGeneration() > 0), false

	case wasPeriod == nil || *wasPeriod == 0:
		if finalized {
			return o, true
		}
		return o, false // waits for its finalizers

	case grace != nil && period < *wasPeriod: // grace can only be shortened
		if period == 0 && finalized {
			return o, true
		}
		at := metav1.NewTime(was.Add(time.Duration(period-*wasPeriod) * time.Second))
		if at.Time.Before(now) {
			at = metav1.NewTime(now.Truncate(time.Second))
			period = min(period, 1) // overdue, and still the machine's to finish
		}
		return deleting(o, at, period, false), false
	}
	return o, false
}

// podGrace is how many seconds a pod may take to stop.
func podGrace(p *corev1.Pod, grace *int64) int64 {
	if grace == nil {
		grace = p.Spec.TerminationGracePeriodSeconds
	}
	switch {
	case grace == nil, p.Spec.NodeName == "":
		return 0
	case p.Status.Phase == corev1.PodFailed, p.Status.Phase == corev1.PodSucceeded:
		return 0
	case *grace < 0:
		return 1
	}
	return *grace
}

// deleting is a copy of o that is on its way out.
func deleting(o Object, at metav1.Time, period int64, bump bool) Object {
	c := o.DeepCopyObject().(Object)
	c.SetDeletionTimestamp(&at)
	c.SetDeletionGracePeriodSeconds(&period)
	if bump {
		c.SetGeneration(o.GetGeneration() + 1)
	}
	return c
}

// beginDeleteNamespace makes a namespace Terminating until its finalizers, in
// spec and metadata, are worked off.
func beginDeleteNamespace(n *corev1.Namespace, now time.Time) (updated Object, gone bool) {
	if len(n.Spec.Finalizers) == 0 && len(n.Finalizers) == 0 && n.DeletionTimestamp != nil {
		return n, true
	}
	if n.DeletionTimestamp != nil && n.Status.Phase == corev1.NamespaceTerminating {
		return n, false
	}
	c := n.DeepCopy()
	if c.DeletionTimestamp == nil {
		at := metav1.NewTime(now.Truncate(time.Second))
		c.DeletionTimestamp = &at
	}
	c.Status.Phase = corev1.NamespaceTerminating
	return c, false
}
