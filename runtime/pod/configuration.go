package pod

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	helper "k8s.io/component-helpers/resource"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/apis/core/pods"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"github.com/troupe-sh/troupe/api"
)

// Environment is a container's environment, and the same by name. When part of
// it cannot be told, err says why of the first, and the rest is there.
func Environment(p *corev1.Pod, c *corev1.Container, in Setting) (env []string, values map[string]string, err error) {
	values = map[string]string{}
	failed := func(e error) {
		if err == nil {
			err = e
		}
	}
	for _, from := range c.EnvFrom {
		all, e := everything(from, in.Sources)
		if e != nil {
			failed(e)
		}
		for key, value := range all {
			values[from.Prefix+key] = value
		}
	}
	names := slices.Sorted(maps.Keys(values))
	for _, v := range c.Env {
		value, e := expansion.Expand(v.Value, expansion.MappingFuncFor(values)), error(nil)
		if v.Value == "" && v.ValueFrom != nil {
			var told bool
			if value, told, e = variable(p, c, v.ValueFrom, in); !told || e != nil {
				if e != nil {
					failed(e)
				}
				continue
			}
		}
		if _, again := values[v.Name]; !again {
			names = append(names, v.Name)
		}
		values[v.Name] = value
	}
	if _, own := values["HOSTNAME"]; !own {
		host := hostname(p)
		if p.Spec.HostNetwork {
			host = in.Machine.Name
		}
		env = append(env, "HOSTNAME="+host)
	}
	for _, name := range names {
		env = append(env, name+"="+values[name])
	}
	return env, values, err
}

// everything is what an envFrom brings. Any key can be a variable's name, by
// Kubernetes' relaxed rule.
func everything(from corev1.EnvFromSource, s api.Sources) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		m, err := s.ConfigMap(from.ConfigMapRef.Name)
		if err != nil {
			return nil, unlessOptional(err, from.ConfigMapRef.Optional)
		}
		return m.Data, nil
	case from.SecretRef != nil:
		m, err := s.Secret(from.SecretRef.Name)
		if err != nil {
			return nil, unlessOptional(err, from.SecretRef.Optional)
		}
		all := map[string]string{}
		for key, value := range m.Data {
			all[key] = string(value)
		}
		return all, nil
	}
	return nil, nil
}

// unlessOptional is err, or nil if what is not there may be missing.
func unlessOptional(err error, optional *bool) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// variable is the value that a variable has from elsewhere; false if it has
// none and may have none.
func variable(p *corev1.Pod, c *corev1.Container, from *corev1.EnvVarSource, in Setting) (value string, ok bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = Field(p, from.FieldRef, in.Machine, in.Addr)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		value, err = bound(p, c, from.ResourceFieldRef, in.Machine)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		m, err := in.Sources.ConfigMap(ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		value, ok := m.Data[ref.Key]
		return value, ok, unknownKey(ok, ref.Optional, ref.Key, "ConfigMap", p.Namespace, ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		m, err := in.Sources.Secret(ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		value, ok := m.Data[ref.Key]
		return string(value), ok, unknownKey(ok, ref.Optional, ref.Key, "Secret", p.Namespace, ref.Name)
	}
	return "", true, nil
}

func unknownKey(known bool, optional *bool, key, kind, namespace, name string) error {
	if known || optional != nil && *optional {
		return nil
	}
	return fmt.Errorf("couldn't find key %s in %s %s/%s", key, kind, namespace, name)
}

// bound is a request or limit of a container: c, unless ref names another. What
// has no limit is bound by the pod's, else by what the machine has to give.
func bound(p *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector, m Machine) (string, error) {
	most := m.Allocatable.DeepCopy()
	for name, limit := range podLimits(p) {
		if _, known := most[name]; known && !limit.IsZero() {
			most[name] = limit
		}
	}
	if ref.ContainerName != "" {
		return resource.ExtractResourceValueByContainerNameAndNodeAllocatable(ref, p, ref.ContainerName, most)
	}
	limited := c.DeepCopy()
	resource.MergeContainerResourceLimits(limited, most)
	return resource.ExtractContainerResourceValue(ref, limited)
}

// podLimits are those of a pod as a whole.
func podLimits(p *corev1.Pod) corev1.ResourceList {
	if !helper.IsPodLevelLimitsSet(p) {
		return nil
	}
	limits := corev1.ResourceList{}
	for name, limit := range p.Spec.Resources.Limits {
		if helper.IsSupportedPodLevelResource(name) {
			limits[name] = limit
		}
	}
	return limits
}

// Field is what a pod's environment may say of the pod itself, which has the
// address addr on machine m.
func Field(p *corev1.Pod, f *corev1.ObjectFieldSelector, m Machine, addr netip.Addr) (string, error) {
	name, _, err := pods.ConvertDownwardAPIFieldLabel(f.APIVersion, f.FieldPath, "")
	if err != nil {
		return "", err
	}
	switch name {
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		addrs := m.addrs()
		if len(addrs) == 0 {
			return "", fmt.Errorf("%s: machine %s has no address of its own", name, m.Name)
		}
		return addrs[0].String(), nil
	case "status.podIP", "status.podIPs":
		if p.Spec.HostNetwork {
			return Field(p, &corev1.ObjectFieldSelector{APIVersion: f.APIVersion, FieldPath: "status.hostIP"}, m, addr)
		}
		if !addr.IsValid() {
			return "", fmt.Errorf("%s: the pod has no address yet", name)
		}
		return addr.String(), nil
	}
	return fieldpath.ExtractFieldPathAsString(p, name)
}

// Follows tells whether a pod has volumes whose files follow what the pod
// refers to, or what it says of itself.
func Follows(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
	})
}
