package pod

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ProbeKind is what a probe is for, as Kubernetes' messages call it.
type ProbeKind string

// The kinds, in the order in which they matter to a container that starts.
const (
	Startup   ProbeKind = "Startup"
	Liveness  ProbeKind = "Liveness"
	Readiness ProbeKind = "Readiness"
)

// ProbeKinds are all of them.
var ProbeKinds = []ProbeKind{Startup, Liveness, Readiness}

// ProbeOf is a container's probe of a kind; nil: it has none.
func ProbeOf(c *corev1.Container, kind ProbeKind) *corev1.Probe {
	switch kind {
	case Startup:
		return c.StartupProbe
	case Liveness:
		return c.LivenessProbe
	default:
		return c.ReadinessProbe
	}
}

// Target is a running container that is asked something.
type Target struct {
	ID        string // the runtime's
	Addr      string // of its pod, as the status has it
	Pod       *corev1.Pod
	Container *corev1.Container
}

// Answer is what became of asking.
type Answer struct {
	Outcome Outcome
	Output  string // what it said, or why it failed
	Err     error  // it could not be asked at all: the outcome counts for nothing
}

// Outcome is one, in Kubernetes' words.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "success"
	Warned  Outcome = "warning" // passed, and people should know something
	Failed  Outcome = "failure"
	Unknown Outcome = "unknown"
)

// Unhealthy is why a container whose probe failed is killed, and within which
// grace: the probe's own goes before the pod's.
func Unhealthy(p *corev1.Pod, c *corev1.Container, kind ProbeKind) (why string, grace time.Duration) {
	what, then := "Container", ""
	switch {
	case PartOf(p, c.Name).Role == Sidecar:
		what = "Init container"
	case RestartsUnhealthy(p, c):
		then = ", will be restarted"
	}
	why = fmt.Sprintf("%s %s failed %s probe%s", what, c.Name, strings.ToLower(string(kind)), then)
	grace = Grace(p)
	if probe := ProbeOf(c, kind); probe != nil && probe.TerminationGracePeriodSeconds != nil && p.DeletionGracePeriodSeconds == nil {
		grace = time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second
	}
	return why, grace
}

// RestartsUnhealthy tells whether a container that was killed because of a
// probe runs again, whatever its exit code.
func RestartsUnhealthy(p *corev1.Pod, c *corev1.Container) bool {
	const failed = 1
	return Restarts(p, c, failed)
}

// AddrOf is where a pod with the sandbox address addr is reached on machine m.
func AddrOf(p *corev1.Pod, m Machine, addr netip.Addr) string {
	if addrs := m.addrs(); p.Spec.HostNetwork && len(addrs) > 0 {
		addr = addrs[0]
	}
	if !addr.IsValid() {
		return p.Status.PodIP
	}
	return addr.String()
}

// Grace is how long a pod's containers have from their signal to their end.
func Grace(p *corev1.Pod) time.Duration {
	if p.Spec.TerminationGracePeriodSeconds == nil {
		return corev1.DefaultTerminationGracePeriodSeconds * time.Second
	}
	return time.Duration(*p.Spec.TerminationGracePeriodSeconds) * time.Second
}
