package pod_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/pod"
)

var yes = true

func fromConfigMap(name, key string, optional *bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: optional,
	}}
}

func fromSecret(name, key string, optional *bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: optional,
	}}
}

func allOfConfigMap(name, prefix string, optional *bool) corev1.EnvFromSource {
	return corev1.EnvFromSource{Prefix: prefix, ConfigMapRef: &corev1.ConfigMapEnvSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: optional,
	}}
}

func allOfSecret(name, prefix string, optional *bool) corev1.EnvFromSource {
	return corev1.EnvFromSource{Prefix: prefix, SecretRef: &corev1.SecretEnvSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: optional,
	}}
}

func ofResource(container, name, divisor string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{
		ContainerName: container, Resource: name, Divisor: resource.MustParse(divisor),
	}}
}

func TestAnEnvironmentIsMadeOfWhatThePodRefersTo(t *testing.T) {
	in := pod.Setting{
		Machine: pod.Machine{Name: "n1", Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("16Gi"),
			corev1.ResourceEphemeralStorage: resource.MustParse("90Gi"),
		}},
		Sources: api.Sources{
			ConfigMaps: map[string]*corev1.ConfigMap{
				"game": {Data: map[string]string{"LIVES": "3", "color.good": "purple", "2D": "no"}},
				"late": {Data: map[string]string{"LIVES": "5"}},
			},
			Secrets: map[string]*corev1.Secret{"key": {Data: map[string][]byte{"USER": []byte("admin"), "PASSWORD": []byte("a$(LIVES)b")}}},
		},
	}
	requests := corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("125m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")},
	}
	for name, c := range map[string]struct {
		from   []corev1.EnvFromSource
		env    []corev1.EnvVar
		args   []string
		limits corev1.ResourceList // of the pod
		want   string
		fails  string
	}{
		"one key of each": {
			env:  []corev1.EnvVar{{Name: "A", ValueFrom: fromConfigMap("game", "LIVES", nil)}, {Name: "B", ValueFrom: fromSecret("key", "USER", nil)}},
			want: "HOSTNAME=web A=3 B=admin",
		},
		"all keys, whatever their names, in their order": {
			from: []corev1.EnvFromSource{allOfConfigMap("game", "", nil), allOfSecret("key", "S_", nil)},
			want: "HOSTNAME=web 2D=no LIVES=3 S_PASSWORD=a$(LIVES)b S_USER=admin color.good=purple",
		},
		"the later of two, and env before envFrom": {
			from: []corev1.EnvFromSource{allOfConfigMap("game", "", nil), allOfConfigMap("late", "", nil)},
			env:  []corev1.EnvVar{{Name: "2D", Value: "yes"}, {Name: "X", Value: "1"}, {Name: "X", Value: "$(X)2"}},
			want: "HOSTNAME=web 2D=yes LIVES=5 color.good=purple X=12",
		},
		"what they bring is expanded in what follows and in arguments": {
			from: []corev1.EnvFromSource{allOfSecret("key", "", nil)},
			env:  []corev1.EnvVar{{Name: "LOGIN", Value: "$(USER):$(PASSWORD) $$(USER) $(NONE)"}},
			args: []string{"--login=$(LOGIN)"},
			want: "HOSTNAME=web PASSWORD=a$(LIVES)b USER=admin LOGIN=admin:a$(LIVES)b $(USER) $(NONE) --login=admin:a$(LIVES)b $(USER) $(NONE)",
		},
		"its own host name": {env: []corev1.EnvVar{{Name: "HOSTNAME", Value: "me"}}, want: "HOSTNAME=me"},
		"what is missing and may be": {
			from: []corev1.EnvFromSource{allOfConfigMap("none", "", &yes), allOfSecret("none", "", &yes)},
			env: []corev1.EnvVar{
				{Name: "A", ValueFrom: fromConfigMap("none", "k", &yes)},
				{Name: "B", ValueFrom: fromSecret("none", "k", &yes)},
				{Name: "C", ValueFrom: fromConfigMap("game", "k", &yes)},
				{Name: "D", ValueFrom: fromSecret("key", "k", &yes)},
				{Name: "E", Value: "$(A)"},
			},
			want: "HOSTNAME=web E=$(A)",
		},
		"requests and limits, rounded up by the divisor": {
			env: []corev1.EnvVar{
				{Name: "A", ValueFrom: ofResource("", "requests.cpu", "0")},
				{Name: "B", ValueFrom: ofResource("", "requests.cpu", "1m")},
				{Name: "C", ValueFrom: ofResource("", "limits.cpu", "1m")},
				{Name: "D", ValueFrom: ofResource("", "requests.memory", "1Mi")},
				{Name: "E", ValueFrom: ofResource("other", "limits.memory", "1Mi")},
			},
			want: "HOSTNAME=web A=1 B=125 C=250 D=32 E=64",
		},
		"what has no limit is bound by the machine": {
			env: []corev1.EnvVar{
				{Name: "A", ValueFrom: ofResource("", "limits.memory", "1Gi")},
				{Name: "B", ValueFrom: ofResource("other", "limits.cpu", "1")},
				{Name: "C", ValueFrom: ofResource("", "limits.ephemeral-storage", "1Gi")},
			},
			want: "HOSTNAME=web A=16 B=8 C=90",
		},
		"or by its pod": {
			env:    []corev1.EnvVar{{Name: "A", ValueFrom: ofResource("", "limits.memory", "1Gi")}, {Name: "B", ValueFrom: ofResource("other", "limits.cpu", "1")}},
			limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi"), corev1.ResourceCPU: resource.MustParse("3")},
			want:   "HOSTNAME=web A=2 B=3",
		},
		"no such ConfigMap":          {env: []corev1.EnvVar{{Name: "A", ValueFrom: fromConfigMap("none", "k", nil)}}, fails: `configmap "none" not found`},
		"no such Secret":             {env: []corev1.EnvVar{{Name: "A", ValueFrom: fromSecret("none", "k", nil)}}, fails: `secret "none" not found`},
		"no such ConfigMap for all":  {from: []corev1.EnvFromSource{allOfConfigMap("none", "", nil)}, fails: `configmap "none" not found`},
		"no such Secret for all":     {from: []corev1.EnvFromSource{allOfSecret("none", "", nil)}, fails: `secret "none" not found`},
		"no such key of a ConfigMap": {env: []corev1.EnvVar{{Name: "A", ValueFrom: fromConfigMap("game", "k", nil)}}, fails: "couldn't find key k in ConfigMap ns/game"},
		"no such key of a Secret":    {env: []corev1.EnvVar{{Name: "A", ValueFrom: fromSecret("key", "k", nil)}}, fails: "couldn't find key k in Secret ns/key"},
		"no such container":          {env: []corev1.EnvVar{{Name: "A", ValueFrom: ofResource("none", "limits.cpu", "1")}}, fails: "container none not found"},
		"the first of two is told": {env: []corev1.EnvVar{
			{Name: "A", ValueFrom: fromSecret("one", "k", nil)}, {Name: "B", ValueFrom: fromSecret("two", "k", nil)},
		}, fails: `secret "one" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u1"},
				Spec: corev1.PodSpec{Containers: []corev1.Container{
					{Name: "c", Image: "i", EnvFrom: c.from, Env: c.env, Args: c.args, Resources: requests},
					{Name: "other", Image: "i", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}}},
				}},
			}
			if c.limits != nil {
				p.Spec.Resources = &corev1.ResourceRequirements{Limits: c.limits}
			}
			spec, err := pod.ContainerSpec(p, &p.Spec.Containers[0], in, 0)
			if c.fails != "" {
				if err == nil || err.Error() != c.fails {
					t.Errorf("%v, want %s", err, c.fails)
				}
				return
			}
			if got := strings.Join(slices.Concat(spec.Env, spec.Args), " "); err != nil || got != c.want {
				t.Errorf("%s, %v\nwant %s", got, err, c.want)
			}
		})
	}
}
