package api

import (
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/core/install"   // registers the kinds with Scheme
	_ "k8s.io/kubernetes/pkg/apis/policy/install" // the same, for evictions of pods
	"k8s.io/kubernetes/pkg/registry/core/configmap"
	"k8s.io/kubernetes/pkg/registry/core/event"
	"k8s.io/kubernetes/pkg/registry/core/namespace"
	"k8s.io/kubernetes/pkg/registry/core/node"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/kubernetes/pkg/registry/core/replicationcontroller"
	"k8s.io/kubernetes/pkg/registry/core/secret"
)

// Scheme is Kubernetes' own: every version of every kind here, with its
// defaults and conversions.
var Scheme = legacyscheme.Scheme

// Kind is what is known of one kind of object.
type Kind struct {
	schema.GroupVersionKind
	Resource   string // plural, as in URLs
	Singular   string
	ShortNames []string
	Categories []string
	Namespaced bool
	New        func() Object // an empty object

	strategy rest.RESTCreateStrategy
}

// GroupResource is the kind's resource with its group.
func (k *Kind) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.Resource}
}

// Key names an object of this kind.
func (k *Kind) Key(namespace, name string) Key {
	return Key{Resource: k.GroupResource().String(), Namespace: namespace, Name: name}
}

var kinds = []*Kind{
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Namespace"),
		Resource:         "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
		New: func() Object { return &corev1.Namespace{} }, strategy: namespace.Strategy,
	},
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Node"),
		Resource:         "nodes", Singular: "node", ShortNames: []string{"no"},
		New: func() Object { return &corev1.Node{} }, strategy: node.Strategy,
	},
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"),
		Resource:         "pods", Singular: "pod", ShortNames: []string{"po"}, Categories: []string{"all"}, Namespaced: true,
		New: func() Object { return &corev1.Pod{} }, strategy: pod.Strategy,
	},
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ReplicationController"),
		Resource:         "replicationcontrollers", Singular: "replicationcontroller", ShortNames: []string{"rc"}, Categories: []string{"all"}, Namespaced: true,
		New: func() Object { return &corev1.ReplicationController{} }, strategy: replicationcontroller.Strategy,
	},
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Event"),
		Resource:         "events", Singular: "event", ShortNames: []string{"ev"}, Namespaced: true,
		New: func() Object { return &corev1.Event{} }, strategy: event.Strategy,
	},
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		Resource:         "configmaps", Singular: "configmap", ShortNames: []string{"cm"}, Namespaced: true,
		New: func() Object { return &corev1.ConfigMap{} }, strategy: configmap.Strategy,
	},
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Secret"),
		Resource:         "secrets", Singular: "secret", Namespaced: true,
		New: func() Object { return &corev1.Secret{} }, strategy: secret.Strategy,
	},
}

var byType, byResource = func() (map[reflect.Type]*Kind, map[string]*Kind) {
	t, r := map[reflect.Type]*Kind{}, map[string]*Kind{}
	for _, k := range kinds {
		t[reflect.TypeOf(k.New())] = k
		r[k.GroupResource().String()] = k
	}
	return t, r
}()

// Kinds lists every kind, in a fixed order.
func Kinds() []*Kind { return kinds }

// KindOf is the kind of an object; nil if Troupe does not have it.
func KindOf(o runtime.Object) *Kind { return byType[reflect.TypeOf(o)] }

// KindFor is the kind of a [Key]'s resource; nil if Troupe does not have it.
func KindFor(resource string) *Kind { return byResource[resource] }

// KeyOf names an object. One of a kind that Troupe does not have is a bug of
// the caller, and panics.
func KeyOf(o Object) Key {
	k := KindOf(o)
	if k == nil {
		panic(fmt.Errorf("key of %T: no such kind", o))
	}
	return k.Key(o.GetNamespace(), o.GetName())
}
