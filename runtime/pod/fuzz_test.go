package pod_test

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/runtime/pod"
)

// What a pod's environment asks of the pod is text, or an error that names it.
func FuzzFieldPaths(f *testing.F) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", Labels: map[string]string{"a": "b", "x/y": "z"}, Annotations: map[string]string{"a": "b"}}}
	for _, path := range []string{"metadata.name", "metadata.labels['x/y']", "metadata.annotations['a']", "metadata.labels", "status.podIPs", "spec.nodeName", "metadata.labels['", "metadata.labels['a']['b']", "status.hostIP", "metadata.uid"} {
		f.Add("v1", path)
	}
	f.Fuzz(func(t *testing.T, version, path string) {
		got, err := pod.Field(p, &corev1.ObjectFieldSelector{APIVersion: version, FieldPath: path}, pod.Machine{Name: "m"}, netip.Addr{})
		if err != nil && (got != "" || err.Error() == "") {
			t.Errorf("%q: %q and %v", path, got, err)
		}
	})
}
