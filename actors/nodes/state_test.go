package nodes_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
)

func TestTaintsFollowConditions(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		key := api.Key{Resource: "nodes", Name: "n"}
		own := corev1.Taint{Key: "mine", Effect: corev1.TaintEffectNoSchedule}
		w.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{own}}})
		taints := func() (keys []string) {
			for _, taint := range w.Get(key).(*corev1.Node).Spec.Taints {
				keys = append(keys, taint.Key)
			}
			return keys
		}
		ready := func(status corev1.ConditionStatus) {
			node := w.Get(key).DeepCopyObject().(*corev1.Node)
			node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
			w.Must(command.Change{Op: command.Status, Key: key, Object: node})
		}
		for _, step := range []struct {
			do   func()
			want []string
		}{
			{func() {}, []string{"mine", corev1.TaintNodeUnreachable}},
			{func() { ready(corev1.ConditionFalse) }, []string{"mine", corev1.TaintNodeNotReady}},
			{func() { ready(corev1.ConditionTrue) }, []string{"mine"}},
			{func() { controltest.Update(w, key, func(n *corev1.Node) { n.Spec.Unschedulable = true }) }, []string{"mine", corev1.TaintNodeUnschedulable}},
			{func() { controltest.Update(w, key, func(n *corev1.Node) { n.Spec.Unschedulable = false }) }, []string{"mine"}},
		} {
			step.do()
			if got := taints(); !slices.Equal(got, step.want) {
				t.Errorf("taints %v, want %v", got, step.want)
			}
		}
	})
}
