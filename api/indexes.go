package api

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Indexes are the terms by which the journal finds an object: [OnNode] for a
// bound pod, [Orphans] for a pod without a controller, [OwnedBy] for each of
// an object's owners.
func Indexes(o Object) []string {
	var terms []string
	if p, ok := o.(*corev1.Pod); ok {
		if p.Spec.NodeName != "" {
			terms = append(terms, OnNode(p.Spec.NodeName))
		}
		if metav1.GetControllerOfNoCopy(p) == nil {
			terms = append(terms, Orphans(p.Namespace))
		}
	}
	for _, r := range o.GetOwnerReferences() {
		terms = append(terms, OwnedBy(r.UID))
	}
	return terms
}

// OnNode is the term that finds the pods bound to a node.
func OnNode(name string) string { return "node=" + name }

// Orphans is the term that finds the pods of a namespace that no controller has.
func Orphans(namespace string) string { return "orphan=" + namespace }

// OwnedBy is the term that finds the objects whose ownerReferences name uid.
func OwnedBy(uid types.UID) string { return "owner=" + string(uid) }
