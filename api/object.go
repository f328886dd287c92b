// Package api knows the kinds: which exist, how their objects are encoded,
// filled in, checked, indexed and shown. It has no actors and does no I/O.
package api

import (
	"cmp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is any object of the API in its external version (k8s.io/api/…/v1).
// One that was read from the registry is shared by all readers: never change
// it, DeepCopyObject it first.
type Object interface {
	runtime.Object
	metav1.Object
}

// Key names one object of the whole cluster.
type Key struct {
	Resource  string // "pods", "replicationcontrollers"; of a named group, "deployments.apps"
	Namespace string // empty for what stands in no namespace
	Name      string
}

// String is the key as people write it: resource/namespace/name.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Resource + "/" + k.Name
	}
	return k.Resource + "/" + k.Namespace + "/" + k.Name
}

// Compare orders keys as lists show them: by resource, namespace, name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Resource, o.Resource), cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name))
}
