package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

// Prepare is what a client's create does to an object before it is stored:
// fields left out are filled in, what a creator may not set is reset, and the
// whole is checked by Kubernetes' own rules. The result is a new object; UID,
// creationTimestamp and a generated name are the registry's to give.
func Prepare(o Object) (Object, error) {
	k := KindOf(o)
	if k == nil {
		return nil, fmt.Errorf("prepare %T: no such kind", o)
	}
	c := o.DeepCopyObject().(Object)
	generate := c.GetName() == "" && c.GetGenerateName() != ""
	if generate {
		c.SetName(GeneratedName(c.GetGenerateName(), "00000")) // checked like any other
	}
	Scheme.Default(c)
	in, err := Scheme.UnsafeConvertToVersion(c, runtime.InternalGroupVersioner)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", KeyOf(o), err)
	}
	ctx := genericapirequest.WithRequestInfo(genericapirequest.WithNamespace(context.Background(), o.GetNamespace()), &genericapirequest.RequestInfo{
		APIGroup: k.Group, APIVersion: k.Version, Resource: k.Resource, Namespace: o.GetNamespace(),
	}) // some of the rules ask what the request is about
	k.strategy.PrepareForCreate(ctx, in)
	if errs := k.strategy.Validate(ctx, in); len(errs) > 0 {
		return nil, apierrors.NewInvalid(k.GroupKind(), cmp.Or(o.GetName(), o.GetGenerateName()), errs)
	}
	k.strategy.Canonicalize(in)
	out := k.New()
	if err := Scheme.Convert(in, out, nil); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", KeyOf(o), err)
	}
	if generate {
		out.SetName("")
	}
	out.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	return out, nil
}

// GeneratedName is a generateName with its suffix, cut to the length that
// names may have.
func GeneratedName(base, suffix string) string {
	const longest = 63 // of a DNS label
	return base[:min(len(base), longest-len(suffix))] + suffix
}

// NewPod makes a pod from a controller's template, complete but for the name,
// which the registry generates from the owner's. Without an owner the
// template's own name or generateName stands.
func NewPod(namespace string, t *corev1.PodTemplateSpec, owner *metav1.OwnerReference) (*corev1.Pod, error) {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:    namespace,
			Name:         t.Name,
			GenerateName: t.GenerateName,
			Labels:       maps.Clone(t.Labels),
			Annotations:  maps.Clone(t.Annotations),
			Finalizers:   slices.Clone(t.Finalizers),
		},
		Spec: t.Spec, // Prepare copies
	}
	if owner != nil {
		p.OwnerReferences = []metav1.OwnerReference{*owner}
		p.Name, p.GenerateName = "", owner.Name+"-"
		if len(validation.ValidatePodName(p.GenerateName, true)) > 0 {
			p.GenerateName = owner.Name // one with the dash would be too long, or no name
		}
	}
	o, err := Prepare(p)
	if err != nil {
		return nil, err
	}
	return o.(*corev1.Pod), nil
}
