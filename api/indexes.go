package api

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Indexes are the terms by which the journal finds an object: [OnNode] for a
// bound pod, [OwnedBy] for each of its owners.
func Indexes(o Object) []string {
	var terms []string
	if p, ok := o.(*corev1.Pod); ok && p.Spec.NodeName != "" {
		terms = append(terms, OnNode(p.Spec.NodeName))
	}
	for _, r := range o.GetOwnerReferences() {
		terms = append(terms, OwnedBy(r.UID))
	}
	return terms
}

// OnNode is the term that finds the pods bound to a node.
func OnNode(name string) string { return "node=" + name }

// OwnedBy is the term that finds the objects whose ownerReferences name uid.
func OwnedBy(uid types.UID) string { return "owner=" + string(uid) }
