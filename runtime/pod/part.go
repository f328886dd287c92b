package pod

import corev1 "k8s.io/api/core/v1"

// Role is what a container is to its pod.
type Role uint8

// The roles.
const (
	Main    Role = iota // what the pod is for
	Init                // runs to its end before what comes after it begins
	Sidecar             // an init container that runs as long as the pod does
)

// Part is one container of a pod.
type Part struct {
	*corev1.Container
	Role Role
}

// Parts are a pod's containers, in the order in which they begin.
func Parts(p *corev1.Pod) []Part {
	all := make([]Part, 0, len(p.Spec.InitContainers)+len(p.Spec.Containers))
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		role := Init
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			role = Sidecar
		}
		all = append(all, Part{c, role})
	}
	for i := range p.Spec.Containers {
		all = append(all, Part{&p.Spec.Containers[i], Main})
	}
	return all
}

// PartOf finds a pod's container by its name; its Container is nil if there is none.
func PartOf(p *corev1.Pod, name string) Part {
	for _, c := range Parts(p) {
		if c.Name == name {
			return c
		}
	}
	return Part{}
}
