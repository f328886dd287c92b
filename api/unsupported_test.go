package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/troupe-sh/troupe/api"
)

func TestUnsupported(t *testing.T) {
	plain, err := api.NewPod("default", template, owner)
	if err != nil {
		t.Fatal(err)
	}
	if warnings, errs := api.Unsupported(plain); len(warnings)+len(errs) > 0 {
		t.Errorf("a plain pod, filled in, gives %v %v", warnings, errs)
	}
	p := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers:        []corev1.Container{{Name: "init", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways), Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "r"}}}}},
		ServiceAccountName:    "default",
		PriorityClassName:     "high",
		HostUsers:             ptr.To(true),
		ActiveDeadlineSeconds: ptr.To(int64(5)),
		OS:                    &corev1.PodOS{Name: corev1.Linux},
		Volumes: []corev1.Volume{
			{Name: "a", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "b", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{}}, {ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}}}}},
		},
		Containers: []corev1.Container{
			{Name: "x", LivenessProbe: &corev1.Probe{}, Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{Key: "k"}}}, {Name: "C", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
			{Name: "y", EnvFrom: []corev1.EnvFromSource{{}}, Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{}, PostStart: &corev1.LifecycleHandler{}}},
		},
	}}
	rc := &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Template: &corev1.PodTemplateSpec{Spec: p.Spec}}}

	warned := []string{"priorityClassName"}
	refused := []string{"containers[0].env[1].valueFrom.fileKeyRef", "initContainers[0].resources.claims", "volumes[2].projected.sources[1].serviceAccountToken"}
	for prefix, o := range map[string]api.Object{"spec.": p, "spec.template.spec.": rc} {
		warnings, errs := api.Unsupported(o)
		got, want := map[string]bool{}, map[string]bool{}
		for _, w := range warnings {
			at, _, _ := strings.Cut(w, ": ")
			got["warned "+at] = true
		}
		for _, e := range errs {
			got["refused "+e.Field] = true
		}
		for _, f := range warned {
			want["warned "+prefix+f] = true
		}
		for _, f := range refused {
			want["refused "+prefix+f] = true
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
}
