package gateway

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/door"
)

// admission looks at what Kubernetes' strategies do not: whether the namespace
// takes new objects, and whether Troupe acts on every field.
type admission struct{ door *door.Door }

var _ kadmission.ValidationInterface = admission{}

// Handles implements [kadmission.Interface].
func (admission) Handles(op kadmission.Operation) bool {
	return op == kadmission.Create || op == kadmission.Update || op == kadmission.Delete
}

// Validate implements [kadmission.ValidationInterface].
func (a admission) Validate(ctx context.Context, req kadmission.Attributes, _ kadmission.ObjectInterfaces) error {
	if req.GetOperation() == kadmission.Delete {
		return mayDelete(req)
	}
	if req.GetOperation() == kadmission.Create && req.GetNamespace() != "" && req.GetResource().Resource != "namespaces" {
		if err := a.mayCreate(ctx, req); err != nil {
			return err
		}
	}
	kind := api.KindFor(req.GetResource().GroupResource().String())
	if kind == nil || req.GetSubresource() != "" {
		return nil
	}
	o := kind.New()
	if err := api.Scheme.Convert(req.GetObject(), o, nil); err != nil {
		return apierrors.NewInternalError(err)
	}
	warnings, errs := api.Unsupported(o)
	if len(errs) > 0 {
		return apierrors.NewInvalid(kind.GroupKind(), req.GetName(), errs)
	}
	for _, w := range warnings {
		warning.AddWarning(ctx, "", w)
	}
	return nil
}

// undeletable are the namespaces that the cluster itself needs.
var undeletable = map[string]bool{metav1.NamespaceDefault: true, metav1.NamespaceSystem: true, metav1.NamespacePublic: true}

func mayDelete(req kadmission.Attributes) error {
	if req.GetResource().Resource == "namespaces" && req.GetSubresource() == "" && undeletable[req.GetName()] {
		return apierrors.NewForbidden(req.GetResource().GroupResource(), req.GetName(), fmt.Errorf("this namespace may not be deleted"))
	}
	return nil
}

// mayCreate says it before the registry would, so that a dry run hears it too.
func (a admission) mayCreate(ctx context.Context, req kadmission.Attributes) error {
	o, err := a.door.Get(ctx, api.Key{Resource: "namespaces", Name: req.GetNamespace()})
	if err != nil {
		return err
	}
	if req.GetSubresource() != "" || o.(*corev1.Namespace).DeletionTimestamp == nil {
		return nil
	}
	refused := kadmission.NewForbidden(req, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", req.GetNamespace()))
	if s, ok := refused.(*apierrors.StatusError); ok {
		s.ErrStatus.Details.Causes = append(s.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", req.GetNamespace()), Field: "metadata.namespace",
		})
	}
	return refused
}
