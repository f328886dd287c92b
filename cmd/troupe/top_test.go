package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/gateway/gatewaytest"
	measured "github.com/troupe-sh/troupe/runtime/pod"
)

func TestTop(t *testing.T) {
	s := gatewaytest.Start(t, containers(t))
	used := func(cpu, memory int64) measured.Rates {
		return measured.Rates{CPU: cpu * 1_000_000, Memory: memory << 20, At: time.Now(), Window: 15 * time.Second}
	}
	capacity := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi")}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: gatewaytest.Node, Labels: map[string]string{"disk": "ssd"}}}
	node = s.Must(node).DeepCopyObject().(*corev1.Node)
	node.Status.Capacity, node.Status.Allocatable = capacity, capacity
	s.Change(command.Change{Op: command.Status, Key: api.KeyOf(node), Object: node, UID: node.UID})
	u := &measured.Usage{Node: used(1000, 2048), Pods: map[types.UID]measured.PodUsage{}}
	for name, cpu := range map[string]int64{"idle": 1, "busy": 700, "fat": 20} {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": name}},
			Spec:       corev1.PodSpec{NodeName: gatewaytest.Node, Containers: []corev1.Container{{Name: "c", Image: "x"}, {Name: "side", Image: "x"}}},
		}
		p = s.Must(p).DeepCopyObject().(*corev1.Pod)
		p.Status.Phase = corev1.PodRunning
		s.Change(command.Change{Op: command.Status, Key: api.KeyOf(p), Object: p, UID: p.UID})
		memory := int64(10)
		if name == "fat" {
			memory = 500
		}
		u.Pods[p.UID] = measured.PodUsage{At: time.Now(), Window: 15 * time.Second, Containers: []measured.ContainerUsage{
			{Name: "c", Rates: used(cpu, memory)}, {Name: "side", Rates: used(2, 3)},
		}}
	}
	troupe(t, s.Socket, "", "top", "pods").failed(t, 1, "what the pods use is not known: nothing is measured yet")
	s.Measure(u)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"pods"}, `
NAME   CPU(cores)   MEMORY(bytes)   
busy   702m         13Mi            
fat    22m          503Mi           
idle   3m           13Mi            
`},
		{[]string{"pods", "--sort-by", "memory", "-A", "--sum"}, `
NAMESPACE   NAME   CPU(cores)   MEMORY(bytes)   
default     fat    22m          503Mi           
default     busy   702m         13Mi            
default     idle   3m           13Mi            
                   ________     ________        
                   727m         529Mi           
`},
		{[]string{"pods", "--sort-by", "cpu", "-l", "app!=busy"}, `
NAME   CPU(cores)   MEMORY(bytes)   
fat    22m          503Mi           
idle   3m           13Mi            
`},
		{[]string{"pod", "busy", "--containers"}, `
POD    NAME   CPU(cores)   MEMORY(bytes)   
busy   c      700m         10Mi            
busy   side   2m           3Mi             
`},
		{[]string{"nodes"}, `
NAME   CPU(cores)   CPU(%)   MEMORY(bytes)   MEMORY(%)   
n1     1000m        25%      2048Mi          25%         
`},
	} {
		r := troupe(t, s.Socket, "", append([]string{"top"}, c.args...)...)
		r.has(t)
		if d := cmp.Diff(c.want, "\n"+r.out); d != "" {
			t.Errorf("top %v: %s", c.args, d)
		}
	}
	troupe(t, s.Socket, "", "top", "nodes", "-l", "disk=hdd").failed(t, 1, "metrics not available yet")
	troupe(t, s.Socket, "", "top", "pod", "none").failed(t, 1, `pods.metrics.k8s.io "none" not found`)
	troupe(t, s.Socket, "", "get", "pods").has(t, "busy") // of the core group, not of metrics.k8s.io
}
