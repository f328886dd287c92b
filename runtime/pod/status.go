package pod

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"github.com/troupe-sh/troupe/runtime/container"
)

// Reasons of container states and conditions, in Kubernetes' words.
const (
	ReasonCreating      = "ContainerCreating"
	ReasonCompleted     = "Completed"
	ReasonError         = "Error"
	ReasonOOMKilled     = "OOMKilled"
	ReasonStartError    = "StartError"
	ReasonUnknown       = "Unknown"                // it ended while nobody looked: the machine rebooted
	ReasonStatusUnknown = "ContainerStatusUnknown" // it was removed

	reasonPodCompleted = "PodCompleted"
	reasonPodFailed    = "PodFailed"
	reasonNotReady     = "ContainersNotReady"
	reasonGates        = "ReadinessGatesNotReady"
)

// Exit codes of containers whose own is not known.
const (
	ExitLost      = 137 // the container is gone
	ExitUnknown   = 255 // the machine rebooted
	ExitUnstarted = 128 // its command could not be run
)

// Time is a moment as the API keeps it: to the second.
func Time(t time.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.NewTime(t.Truncate(time.Second))
}

// Terminated is how a container ended, with what it had to say.
func Terminated(c container.Container, message string) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode:    int32(c.ExitCode),
		Reason:      ReasonError,
		Message:     message,
		StartedAt:   Time(c.StartedAt),
		FinishedAt:  Time(c.FinishedAt),
		ContainerID: FullID(c.ID),
	}
	switch {
	case !c.ExitKnown:
		t.ExitCode, t.Reason = ExitUnknown, ReasonUnknown
	case c.OOMKilled:
		t.Reason = ReasonOOMKilled
	case c.ExitCode == 0:
		t.Reason = ReasonCompleted
	}
	return t
}

// Lost is the end of a container that somebody removed.
func Lost(id string, started time.Time) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		ExitCode:    ExitLost,
		Reason:      ReasonStatusUnknown,
		Message:     "The container could not be located when the pod was terminated",
		StartedAt:   Time(started),
		ContainerID: FullID(id),
	}
}

// Unstarted is the end of a container whose command could not be run.
func Unstarted(id string, at time.Time, err error) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		ExitCode:    ExitUnstarted,
		Reason:      ReasonStartError,
		Message:     err.Error(),
		StartedAt:   Time(time.Unix(0, 0)),
		FinishedAt:  Time(at),
		ContainerID: FullID(id),
	}
}

// FullID is a container's ID with the runtime's name.
func FullID(id string) string {
	if id == "" {
		return ""
	}
	return "containerd://" + id
}

// Restarts tells whether a container that ended with code runs again.
func Restarts(p *corev1.Pod, c *corev1.Container, code int32) bool {
	return podutil.ContainerShouldRestart(*c, p.Spec, code)
}

// ContainerStatus is the status of a container before anything is known of it
// but what the registry has.
func ContainerStatus(c *corev1.Container, old *corev1.ContainerStatus) corev1.ContainerStatus {
	no := false
	s := corev1.ContainerStatus{
		Name:    c.Name,
		Image:   c.Image,
		Started: &no,
		State:   corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: ReasonCreating}},
	}
	for _, v := range c.VolumeMounts {
		mount := corev1.VolumeMountStatus{Name: v.Name, MountPath: v.MountPath, ReadOnly: v.ReadOnly}
		if v.ReadOnly {
			disabled := corev1.RecursiveReadOnlyDisabled
			mount.RecursiveReadOnly = &disabled
		}
		s.VolumeMounts = append(s.VolumeMounts, mount)
	}
	if old != nil {
		s.RestartCount = old.RestartCount
		s.LastTerminationState = old.LastTerminationState
	}
	return s
}

// Facts are what a pod's status follows from.
type Facts struct {
	Pod        *corev1.Pod
	Old        *corev1.PodStatus // as last reported, or as the registry has it
	Machine    Machine
	Sandbox    *container.Sandbox
	Containers map[string]corev1.ContainerStatus
	Heals      bool // one that a probe ended runs again, whatever its exit code says
	Ending     bool // nothing is started any more
	Ended      bool // nothing runs any more nor ever will
	Now        time.Time
}

// Status is a pod's status, by the rules of Kubernetes' own agent.
func Status(f Facts) *corev1.PodStatus {
	p, old := f.Pod, f.Old
	s := &corev1.PodStatus{
		ObservedGeneration:         max(p.Generation, old.ObservedGeneration),
		StartTime:                  old.StartTime,
		QOSClass:                   qosOf(p),
		PodIP:                      old.PodIP,
		PodIPs:                     old.PodIPs,
		NominatedNodeName:          p.Status.NominatedNodeName,
		ResourceClaimStatuses:      p.Status.ResourceClaimStatuses,
		InitContainerStatuses:      old.InitContainerStatuses,
		EphemeralContainerStatuses: old.EphemeralContainerStatuses,
		ContainerStatuses:          containerStatuses(f),
	}
	if s.StartTime == nil {
		now := Time(f.Now)
		s.StartTime = &now
	}
	addresses(s, f)
	s.Phase = phase(p, s.ContainerStatuses, f.Ending)
	if f.Heals && !f.Ending && (s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodFailed) {
		s.Phase = corev1.PodRunning
	}
	if f.Ended && s.Phase != corev1.PodSucceeded {
		s.Phase = corev1.PodFailed
	}
	for _, before := range []corev1.PodPhase{old.Phase, p.Status.Phase} {
		if before == corev1.PodSucceeded || before == corev1.PodFailed {
			s.Phase = before // a pod never leaves the end
		}
	}
	if s.Phase == old.Phase {
		s.Reason, s.Message = old.Reason, old.Message
	}
	s.Conditions = conditions(f, s)
	return s
}

func addresses(s *corev1.PodStatus, f Facts) {
	for i, a := range f.Machine.addrs() {
		if i == 0 {
			s.HostIP = a.String()
		}
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: a.String()})
	}
	switch {
	case f.Pod.Spec.HostNetwork:
		if s.HostIP != "" {
			s.PodIP, s.PodIPs = s.HostIP, []corev1.PodIP{{IP: s.HostIP}}
		}
	case f.Sandbox != nil && f.Sandbox.Addr.IsValid():
		s.PodIP = f.Sandbox.Addr.String()
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
}

// containerStatuses are sorted by name. Once the pod has ended none is left
// open: what nobody can tell counts as a failure.
func containerStatuses(f Facts) []corev1.ContainerStatus {
	var all []corev1.ContainerStatus
	for _, name := range slices.Sorted(maps.Keys(f.Containers)) {
		c := f.Containers[name]
		if f.Ended && c.State.Terminated == nil {
			c.State = corev1.ContainerState{Terminated: Lost("", time.Time{})}
			c.Ready = false
		}
		all = append(all, c)
	}
	return all
}

// phase is where a pod stands.
func phase(p *corev1.Pod, statuses []corev1.ContainerStatus, ending bool) corev1.PodPhase {
	var unknown, running, waiting, stopped, final, succeeded int
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		s, ok := podutil.GetContainerStatus(statuses, c.Name)
		switch {
		case !ok:
			unknown++
		case s.State.Running != nil:
			running++
		case s.State.Terminated != nil:
			stopped++
			if !Restarts(p, c, s.State.Terminated.ExitCode) {
				final++
			}
			if s.State.Terminated.ExitCode == 0 {
				succeeded++
			}
		case s.State.Waiting != nil && s.LastTerminationState.Terminated != nil:
			stopped++
			if !Restarts(p, c, s.LastTerminationState.Terminated.ExitCode) {
				final++
			}
		case s.State.Waiting != nil:
			waiting++
		default:
			unknown++
		}
	}
	switch {
	case waiting > 0:
		return corev1.PodPending
	case running > 0 && unknown == 0:
		return corev1.PodRunning
	case running > 0 || unknown > 0 || stopped == 0:
		return corev1.PodPending
	case !ending && stopped != final:
		return corev1.PodRunning // in the process of restarting
	case stopped == succeeded:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// conditions are those of others first, then this machine's own.
func conditions(f Facts, s *corev1.PodStatus) []corev1.PodCondition {
	var all []corev1.PodCondition
	for _, c := range f.Pod.Status.Conditions {
		switch c.Type {
		case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled:
		default:
			all = append(all, c)
		}
	}
	initialized := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if s.Phase == corev1.PodSucceeded {
		initialized.Reason = reasonPodCompleted
	}
	containers := containersReady(f.Pod, s)
	ready := containers
	ready.Type = corev1.PodReady
	if ready.Status == corev1.ConditionTrue {
		ready = gates(f.Pod, all, ready)
	}
	own := []corev1.PodCondition{
		{Type: corev1.PodReadyToStartContainers, Status: truth(f.Sandbox != nil && f.Sandbox.Ready)},
		initialized, ready, containers,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	}
	for _, c := range own {
		c.ObservedGeneration = f.Pod.Generation
		c.LastTransitionTime = Time(f.Now)
		for _, from := range []*corev1.PodStatus{f.Old, &f.Pod.Status} {
			if _, before := podutil.GetPodCondition(from, c.Type); before != nil {
				if before.Status == c.Status {
					c.LastTransitionTime = before.LastTransitionTime
				}
				break
			}
		}
		all = append(all, c)
	}
	return all
}

func truth(b bool) corev1.ConditionStatus {
	if b {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

func containersReady(p *corev1.Pod, s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}
	var unknown, unready []string
	for _, spec := range p.Spec.Containers {
		status, ok := podutil.GetContainerStatus(s.ContainerStatuses, spec.Name)
		switch {
		case !ok:
			unknown = append(unknown, spec.Name)
		case !status.Ready:
			unready = append(unready, spec.Name)
		}
	}
	var parts []string
	if len(unknown) > 0 {
		parts = append(parts, fmt.Sprintf("containers with unknown status: %s", unknown))
	}
	if len(unready) > 0 {
		parts = append(parts, fmt.Sprintf("containers with unready status: %s", unready))
	}
	switch {
	case s.Phase == corev1.PodSucceeded && len(unknown) == 0:
		c.Reason = reasonPodCompleted
	case s.Phase == corev1.PodFailed:
		c.Reason = reasonPodFailed
	case len(parts) > 0:
		c.Reason, c.Message = reasonNotReady, strings.Join(parts, ", ")
	default:
		c.Status = corev1.ConditionTrue
	}
	return c
}

func gates(p *corev1.Pod, others []corev1.PodCondition, ready corev1.PodCondition) corev1.PodCondition {
	var parts []string
	for _, g := range p.Spec.ReadinessGates {
		_, c := podutil.GetPodConditionFromList(others, g.ConditionType)
		switch {
		case c == nil:
			parts = append(parts, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		case c.Status != corev1.ConditionTrue:
			parts = append(parts, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", g.ConditionType, c.Status))
		}
	}
	if len(parts) > 0 {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, reasonGates, strings.Join(parts, ", ")
	}
	return ready
}
