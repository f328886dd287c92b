package pod

import (
	"cmp"
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
	ReasonInitializing  = "PodInitializing" // ContainerCreating of a pod with init containers
	ReasonCompleted     = "Completed"
	ReasonError         = "Error"
	ReasonOOMKilled     = "OOMKilled"
	ReasonStartError    = "StartError"
	ReasonUnknown       = "Unknown"                // it ended while nobody looked: the machine rebooted
	ReasonStatusUnknown = "ContainerStatusUnknown" // it was removed

	reasonPodCompleted   = "PodCompleted"
	reasonPodFailed      = "PodFailed"
	reasonNotReady       = "ContainersNotReady"
	reasonNotInitialized = "ContainersNotInitialized"
	reasonGates          = "ReadinessGatesNotReady"
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

// Completed is the end of an init container that the runtime knows nothing of
// any more: what comes after it has begun, so it has done its work.
func Completed() *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		Reason:  ReasonCompleted,
		Message: "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally",
	}
}

// Restarts tells whether a container that ended with code runs again. An init
// container that has done its work does not, whatever the pod's policy.
func Restarts(p *corev1.Pod, c *corev1.Container, code int32) bool {
	if code == 0 && PartOf(p, c.Name).Role == Init {
		return false
	}
	return podutil.ContainerShouldRestart(*c, p.Spec, code)
}

// ContainerStatus is the status of a container of p before anything is known of
// it but what the registry has.
func ContainerStatus(p *corev1.Pod, c *corev1.Container, old *corev1.ContainerStatus) corev1.ContainerStatus {
	no := false
	reason := ReasonCreating
	if len(p.Spec.InitContainers) > 0 {
		reason = ReasonInitializing
	}
	s := corev1.ContainerStatus{
		Name:    c.Name,
		Image:   c.Image,
		Started: &no,
		State:   corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
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
	Begun      bool    // its main containers have had their turn in this sandbox
	Held       bool    // something of it may run still: it has not come to its end yet
	Ending     bool    // nothing is started any more
	Ended      bool    // nothing runs any more nor ever will
	Failure    Failure // why it has failed, whatever its containers say
	Heals      bool    // one that a probe ended runs again, whatever its exit code says
	Now        time.Time
}

// Failure is why a pod as a whole has failed.
type Failure struct{ Reason, Message string }

// DeadlineExceeded is the failure of a pod that ran longer than it may.
var DeadlineExceeded = Failure{"DeadlineExceeded", "Pod was active on the node longer than the specified deadline"}

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
		InitContainerStatuses:      initStatuses(f),
		EphemeralContainerStatuses: old.EphemeralContainerStatuses,
		ContainerStatuses:          containerStatuses(f),
	}
	if s.StartTime == nil {
		now := Time(f.Now)
		s.StartTime = &now
	}
	addresses(s, f)
	s.Phase = phase(f, s)
	if f.Heals && !f.Ending && terminal(s.Phase) {
		s.Phase = corev1.PodRunning
	}
	if f.Ended && s.Phase != corev1.PodSucceeded || f.Failure.Reason != "" {
		s.Phase = corev1.PodFailed
	}
	if f.Held && terminal(s.Phase) {
		s.Phase = cmp.Or(old.Phase, corev1.PodPending)
	}
	for _, before := range []corev1.PodPhase{old.Phase, p.Status.Phase} {
		if terminal(before) {
			s.Phase = before // a pod never leaves the end
		}
	}
	switch {
	case s.Phase == old.Phase:
		s.Reason, s.Message = old.Reason, old.Message
	case s.Phase == corev1.PodFailed:
		s.Reason, s.Message = f.Failure.Reason, f.Failure.Message
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

func terminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// containerStatuses are sorted by name. Once the pod has ended none of those
// that had their turn is left open: what nobody can tell counts as a failure.
func containerStatuses(f Facts) []corev1.ContainerStatus {
	var all []corev1.ContainerStatus
	closed := f.Ended && initialized(f)
	for _, name := range slices.Sorted(maps.Keys(f.Containers)) {
		if PartOf(f.Pod, name).Role != Main {
			continue
		}
		c := f.Containers[name]
		if closed && c.State.Terminated == nil {
			c = lost(c)
		}
		all = append(all, c)
	}
	return all
}

// initStatuses are in the pod's order. Once it has ended none is left open up
// to the last that has ever begun.
func initStatuses(f Facts) []corev1.ContainerStatus {
	var all []corev1.ContainerStatus
	for i := range f.Pod.Spec.InitContainers {
		if c, ok := f.Containers[f.Pod.Spec.InitContainers[i].Name]; ok {
			all = append(all, c)
		}
	}
	if !f.Ended {
		return all
	}
	for i, begun := len(all)-1, false; i >= 0; i-- {
		begun = begun || i == 0 || moved(all[i])
		if begun && all[i].State.Terminated == nil {
			all[i] = lost(all[i])
		}
	}
	return all
}

func lost(c corev1.ContainerStatus) corev1.ContainerStatus {
	c.State = corev1.ContainerState{Terminated: Lost("", time.Time{})}
	c.Ready = false
	return c
}

// moved tells whether a container has ever done more than wait.
func moved(c corev1.ContainerStatus) bool {
	return c.State.Waiting == nil || c.LastTerminationState.Terminated != nil
}

// initialized tells whether the main containers have ever had their turn.
func initialized(f Facts) bool {
	inits := f.Pod.Spec.InitContainers
	for i := range f.Pod.Spec.Containers {
		if c, ok := f.Containers[f.Pod.Spec.Containers[i].Name]; ok && moved(c) {
			return true
		}
	}
	return len(inits) == 0 || passed(f.Pod, f.Containers[inits[len(inits)-1].Name])
}

// passed tells whether what comes after an init container may begin.
func passed(p *corev1.Pod, c corev1.ContainerStatus) bool {
	if PartOf(p, c.Name).Role == Sidecar {
		return c.Started != nil && *c.Started
	}
	return c.State.Terminated != nil && c.State.Terminated.ExitCode == 0
}

// phase is where a pod stands.
func phase(f Facts, s *corev1.PodStatus) corev1.PodPhase {
	p := f.Pod
	var unknown, running, waiting, stopped, final, succeeded, pending, failed int
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		s, ok := podutil.GetContainerStatus(s.InitContainerStatuses, c.Name)
		end := cmp.Or(s.State.Terminated, s.LastTerminationState.Terminated)
		switch sidecar := PartOf(p, c.Name).Role == Sidecar; {
		case sidecar && !ok:
			unknown++
		case sidecar && s.State.Running != nil:
			running++
			if !f.Begun && !passed(p, s) {
				pending++
			}
		case sidecar && end == nil:
			waiting++
		case sidecar: // one that has ended says nothing about the pod
		case s.State.Running != nil || end == nil:
			pending++
		case end.ExitCode != 0 && !Restarts(p, c, end.ExitCode):
			failed++
		}
	}
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		s, ok := podutil.GetContainerStatus(s.ContainerStatuses, c.Name)
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
	case failed > 0:
		return corev1.PodFailed
	case pending > 0 || waiting > 0:
		return corev1.PodPending
	case running > 0 && unknown == 0:
		return corev1.PodRunning
	case running > 0 || unknown > 0 || stopped == 0:
		return corev1.PodPending
	case !f.Ending && stopped != final:
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
	containers := containersReady(f.Pod, s)
	ready := containers
	ready.Type = corev1.PodReady
	if ready.Status == corev1.ConditionTrue {
		ready = gates(f.Pod, all, ready)
	}
	own := []corev1.PodCondition{
		{Type: corev1.PodReadyToStartContainers, Status: truth(f.Sandbox != nil && f.Sandbox.Ready)},
		initializedCondition(f, s), ready, containers,
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

// initializedCondition tells whether the init containers are done. It stays
// true when they run again in another sandbox.
func initializedCondition(f Facts, s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	var unknown, incomplete []string
	for _, spec := range f.Pod.Spec.InitContainers {
		status, ok := podutil.GetContainerStatus(s.InitContainerStatuses, spec.Name)
		switch {
		case !ok:
			unknown = append(unknown, spec.Name)
		case !passed(f.Pod, status):
			incomplete = append(incomplete, spec.Name)
		}
	}
	if s.Phase == corev1.PodSucceeded && len(unknown) == 0 {
		c.Reason = reasonPodCompleted
		return c
	}
	_, before := podutil.GetPodCondition(f.Old, corev1.PodInitialized)
	if before != nil && before.Status == corev1.ConditionTrue || slices.ContainsFunc(s.ContainerStatuses, begun) {
		return c
	}
	if message := lacking(unknown, "incomplete", incomplete); message != "" {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, reasonNotInitialized, message
	}
	return c
}

func begun(c corev1.ContainerStatus) bool { return c.State.Running != nil || c.State.Terminated != nil }

// lacking names the containers that a condition waits for.
func lacking(unknown []string, what string, others []string) string {
	var parts []string
	if len(unknown) > 0 {
		parts = append(parts, fmt.Sprintf("containers with unknown status: %s", unknown))
	}
	if len(others) > 0 {
		parts = append(parts, fmt.Sprintf("containers with %s status: %s", what, others))
	}
	return strings.Join(parts, ", ")
}

func containersReady(p *corev1.Pod, s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}
	var unknown, unready []string
	statuses := slices.Concat(s.InitContainerStatuses, s.ContainerStatuses)
	for _, part := range Parts(p) {
		if part.Role == Init {
			continue
		}
		status, ok := podutil.GetContainerStatus(statuses, part.Name)
		switch {
		case !ok:
			unknown = append(unknown, part.Name)
		case !status.Ready:
			unready = append(unready, part.Name)
		}
	}
	message := lacking(unknown, "unready", unready)
	switch {
	case s.Phase == corev1.PodSucceeded && len(unknown) == 0:
		c.Reason = reasonPodCompleted
	case s.Phase == corev1.PodFailed:
		c.Reason = reasonPodFailed
	case message != "":
		c.Reason, c.Message = reasonNotReady, message
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
