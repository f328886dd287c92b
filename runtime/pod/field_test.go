package pod_test

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/runtime/pod"
)

func TestAnEnvironmentSpeaksOfItsPod(t *testing.T) {
	from := func(name, field string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: field}}}
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u1", Labels: map[string]string{"tier": "front"}},
		Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "default", Containers: []corev1.Container{{
			Name: "c", Image: "i",
			Args: []string{"$(IP)"},
			Env: []corev1.EnvVar{
				from("NODE", "spec.nodeName"), from("NAME", "metadata.name"), from("NS", "metadata.namespace"), from("UID", "metadata.uid"),
				from("IP", "status.podIP"), from("HOST", "status.hostIP"), from("ACCOUNT", "spec.serviceAccountName"),
				from("TIER", "metadata.labels['tier']"),
				{Name: "BOTH", Value: "$(NAME)@$(NODE)"},
			},
		}}},
	}
	m := pod.Machine{Name: "n1", Addrs: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.1")} }}
	addr := netip.MustParseAddr("10.244.0.7")
	spec, err := pod.ContainerSpec(p, &p.Spec.Containers[0], pod.Setting{Machine: m, Addr: addr}, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"HOSTNAME=web", "NODE=n1", "NAME=web", "NS=ns", "UID=u1", "IP=10.244.0.7", "HOST=192.0.2.1", "ACCOUNT=default", "TIER=front", "BOTH=web@n1",
	}
	if !slices.Equal(spec.Env, want) {
		t.Errorf("environment %v\nwant %v", spec.Env, want)
	}
	if !slices.Equal(spec.Args, []string{"10.244.0.7"}) {
		t.Errorf("arguments %v", spec.Args)
	}

	p.Spec.HostNetwork = true
	if spec, err = pod.ContainerSpec(p, &p.Spec.Containers[0], pod.Setting{Machine: m}, 0); err != nil || spec.Args[0] != "192.0.2.1" {
		t.Errorf("in the host's network: %v, %v", spec.Args, err)
	}
	if _, err = pod.ContainerSpec(p, &p.Spec.Containers[0], pod.Setting{Machine: pod.Machine{Name: "n1"}}, 0); err == nil {
		t.Error("a machine without an address: no error")
	}
}
