package api

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// The resources that pods take their configuration from.
const (
	ConfigMaps = "configmaps"
	Secrets    = "secrets"
)

// Sources are the ConfigMaps and Secrets that a pod refers to, by their names
// in its namespace, as far as they exist. They are shared: never change them.
type Sources struct {
	ConfigMaps map[string]*corev1.ConfigMap
	Secrets    map[string]*corev1.Secret
}

// SourcesOf are the keys of all that a pod refers to, in its environment, its
// volumes and its imagePullSecrets; sorted.
func SourcesOf(p *corev1.Pod) []Key {
	var keys []Key
	add := func(resource string) podutil.Visitor {
		return func(name string) bool {
			keys = append(keys, Key{Resource: resource, Namespace: p.Namespace, Name: name})
			return true
		}
	}
	podutil.VisitPodConfigmapNames(p, add(ConfigMaps))
	podutil.VisitPodSecretNames(p, add(Secrets))
	slices.SortFunc(keys, Key.Compare)
	return slices.Compact(keys)
}

// ConfigMap returns one, or says in Kubernetes' words that there is none.
func (s Sources) ConfigMap(name string) (*corev1.ConfigMap, error) {
	if m := s.ConfigMaps[name]; m != nil {
		return m, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
}

// Secret returns one, or says in Kubernetes' words that there is none.
func (s Sources) Secret(name string) (*corev1.Secret, error) {
	if m := s.Secrets[name]; m != nil {
		return m, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
}

// Equal tells whether both are the same objects in the same versions.
func (s Sources) Equal(o Sources) bool {
	return same(s.ConfigMaps, o.ConfigMaps) && same(s.Secrets, o.Secrets)
}

func same[T Object](a, b map[string]T) bool {
	if len(a) != len(b) {
		return false
	}
	for name, was := range a {
		if is, ok := b[name]; !ok || is.GetUID() != was.GetUID() || is.GetResourceVersion() != was.GetResourceVersion() {
			return false
		}
	}
	return true
}
