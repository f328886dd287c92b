package door

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	policyclient "k8s.io/client-go/kubernetes/typed/policy/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/kubelet/client"
	configmap "k8s.io/kubernetes/pkg/registry/core/configmap/storage"
	event "k8s.io/kubernetes/pkg/registry/core/event/storage"
	namespace "k8s.io/kubernetes/pkg/registry/core/namespace/storage"
	node "k8s.io/kubernetes/pkg/registry/core/node/storage"
	pod "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	replicationcontroller "k8s.io/kubernetes/pkg/registry/core/replicationcontroller/storage"
	secret "k8s.io/kubernetes/pkg/registry/core/secret/storage"

	"github.com/troupe-sh/troupe/api"
)

// Storages are the resources and sub-resources of core/v1 by their path, with
// Kubernetes' own strategies, each over this door. Those of a pod that lead to
// its machine (log, exec, attach) are the gateway's.
func (d *Door) Storages() (map[string]rest.Storage, error) {
	var failed error
	must := func(err error) {
		if err != nil && failed == nil {
			failed = err
		}
	}
	o := options{d}
	configMaps, err := configmap.NewREST(o)
	must(err)
	events, err := event.NewREST(o, 0) // the registry lets them go, not the storage
	must(err)
	namespaces, namespaceStatus, finalize, err := namespace.NewREST(o)
	must(err)
	nodes, err := node.NewStorage(o, client.KubeletClientConfig{}, nil)
	must(err)
	pods, err := pod.NewStorage(o, nil, nil, noBudgets{}, authorizerfactory.NewAlwaysAllowAuthorizer())
	must(err)
	controllers, err := replicationcontroller.NewStorage(o)
	must(err)
	secrets, err := secret.NewREST(o)
	must(err)
	if failed != nil {
		return nil, fmt.Errorf("storage of core/v1: %w", failed)
	}
	return map[string]rest.Storage{
		"bindings":                      pods.LegacyBinding,
		"configmaps":                    configMaps,
		"events":                        events,
		"namespaces":                    namespaces,
		"namespaces/finalize":           finalize,
		"namespaces/status":             namespaceStatus,
		"nodes":                         nodes.Node,
		"nodes/status":                  nodes.Status,
		"pods":                          pods.Pod,
		"pods/binding":                  pods.Binding,
		"pods/eviction":                 pods.Eviction,
		"pods/status":                   pods.Status,
		"replicationcontrollers":        controllers.Controller,
		"replicationcontrollers/scale":  controllers.Scale,
		"replicationcontrollers/status": controllers.Status,
		"secrets":                       secrets,
	}, nil
}

// noBudgets are the disruption budgets that an eviction asks for: Troupe has
// none yet, so every eviction is allowed.
type noBudgets struct {
	policyclient.PodDisruptionBudgetInterface
}

// PodDisruptionBudgets implements [policyclient.PodDisruptionBudgetsGetter].
func (b noBudgets) PodDisruptionBudgets(string) policyclient.PodDisruptionBudgetInterface { return b }

// List implements [policyclient.PodDisruptionBudgetInterface].
func (noBudgets) List(context.Context, metav1.ListOptions) (*policyv1.PodDisruptionBudgetList, error) {
	return &policyv1.PodDisruptionBudgetList{}, nil
}

// options gives Kubernetes' stores this door as their storage.
type options struct{ door *Door }

// GetRESTOptions implements [generic.RESTOptionsGetter].
func (o options) GetRESTOptions(resource schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	kind := api.KindFor(resource.String())
	if kind == nil {
		return generic.RESTOptions{}, fmt.Errorf("%s: no such kind", resource)
	}
	config := &storagebackend.ConfigForResource{GroupResource: resource}
	config.Codec = legacyscheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion)
	config.EncodeVersioner = kind.GroupVersion()
	return generic.RESTOptions{
		StorageConfig:           config,
		EnableGarbageCollection: true,
		DeleteCollectionWorkers: 16, // whose deletes share commits
		ResourcePrefix:          resource.String(),
		Decorator: func(_ *storagebackend.ConfigForResource, _ string, _ func(runtime.Object) (string, error),
			newFunc, _ func() runtime.Object, _ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers,
		) (storage.Interface, factory.DestroyFunc, error) {
			return &kindStorage{door: o.door, kind: kind, new: newFunc}, func() {}, nil
		},
	}, nil
}
