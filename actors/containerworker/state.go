package containerworker

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

const (
	backoffBase  = 10 * time.Second
	backoffMax   = 5 * time.Minute
	backoffReset = 10 * time.Minute // of running
	shown        = 2 * time.Second  // how long a failure stands before the back-off it causes
	soon         = 500 * time.Millisecond
	overdue      = 10 * time.Second // an answer of images that takes longer was lost with it
	lived        = time.Second      // what is removed after so long was not in a loop
	recheck      = 2 * time.Second  // after a kill that nothing was heard of
	lastGrace    = 2 * time.Second  // what is left after a hook, at the least
)

// phase is where the container stands.
type phase uint8

const (
	idle       phase = iota // nothing is known yet
	checking                // asks the runtime how an adopted one stands
	waiting                 // shall run, and lacks its image or its sandbox, or a moment
	making                  // is being created and started
	running                 // runs, as far as anybody heard
	backingOff              // has ended or failed, and runs again later
	ended                   // has ended and will not run again
)

// goal is what is wished.
type goal uint8

const (
	keep  goal = iota // running, by its policy
	heal              // ended, since a probe or hook failed, then again by its policy
	renew             // ended, then running by its changed definition
	leave             // ended, then running in another sandbox
	stop              // ended for good
)

// state is a container's worker's whole memory. Its methods read no clock and
// do no I/O; they return what must happen next.
type state struct {
	machine pod.Machine
	backoff time.Duration // before the second restart

	pod     *corev1.Pod
	sources api.Sources // what the pod refers to
	spec    *corev1.Container
	role    pod.Role
	phase   phase
	goal    goal
	attempt uint32 // of the container that there is, or that is made next
	status  corev1.ContainerStatus
	fact    container.Container // of attempt, as last seen
	unsure  error               // what starting it answered, when it may run all the same
	since   time.Time           // runs since, if it was started in this actor's life
	exited  bool                // its end was heard of while it was still being made
	heals   bool                // a probe ended it, and it runs again whatever its exit code says
	streak  int                 // restarts in a row

	entered  uint64     // the number of the Enter that stands; 0: none does
	lost     uint64     // of the Enter whose sandbox turned out not to be there
	left     uint64     // of the last Leave
	addr     netip.Addr // of the pod, while its sandbox is there
	mounts   []container.Mount
	image    *container.Image
	absences int       // times that the image was not there
	pulling  time.Time // since its registry is asked; zero: it is not
	arrived  bool      // its registry has brought it for this attempt

	turn   uint64 // timers of an earlier one mean nothing
	asked  uint64 // the question to images that waits for its answer; 0: none
	next   *corev1.ContainerStateWaiting
	failed int  // times in a row that it could not be made
	unset  bool // what it is made of cannot be told: another pod, or other sources, may help

	looks    uint64    // looks at the runtime that were put off: only the last counts
	killAt   time.Time // zero: nobody said
	killTurn uint64
	armed    uint64 // the killTurn whose timer is set
	why      string // it has to end
	told     bool   // people are
	sent     bool   // the signal that asks it to end
	signaled bool   // and it is known to have had it

	hooking hooking
	hooks   uint64                        // begun: answers of an earlier one mean nothing
	mishap  *corev1.ContainerStateWaiting // its hook failed after its start, and it ends for that
}

// effect is something to do.
type effect interface{ effect() }

type (
	hook struct {
		handler *corev1.LifecycleHandler
		turn    uint64
	}
	report  struct{}
	note    struct{ kind, reason, message string }
	podNote note // about the pod as a whole
	find    struct {
		image  string
		policy corev1.PullPolicy
	}
	launch  struct{ spec container.Spec }
	inspect struct{ id string }
	signal  struct {
		id  string
		sig syscall.Signal
	}
	clean struct {
		id  string
		log string
	}
	wait struct {
		delay   time.Duration
		message any
	}
)

func (hook) effect()    {}
func (report) effect()  {}
func (note) effect()    {}
func (podNote) effect() {}
func (find) effect()    {}
func (launch) effect()  {}
func (inspect) effect() {}
func (signal) effect()  {}
func (clean) effect()   {}
func (wait) effect()    {}

// turned begins a new phase: timers of the last one are void.
func (s *state) turned(p phase) {
	s.phase = p
	s.turn++
	s.next, s.unset = nil, false
}

func (s *state) id() string { return pod.ContainerID(s.pod.UID, s.spec.Name, s.attempt) }

// run begins with what there is.
func (s *state) run(m pod.Run, now time.Time) []effect {
	if s.phase != idle {
		return nil // it has begun
	}
	s.sources = m.Sources
	if !s.revised(m.Pod, m.Name) {
		return []effect{report{}} // the pod has no such container: nothing to do
	}
	s.status = pod.ContainerStatus(s.pod, s.spec, m.Old)
	found := slices.SortedFunc(slices.Values(m.Found), func(a, b container.Container) int { return cmp.Compare(b.Attempt, a.Attempt) })
	found = slices.DeleteFunc(found, func(c container.Container) bool {
		return c.ID != pod.ContainerID(s.pod.UID, s.spec.Name, c.Attempt)
	})
	if m.Done && (len(found) == 0 || found[0].State != container.Exited || found[0].ExitCode != 0) {
		return s.done(m.Old)
	}
	if len(found) == 0 || m.Old != nil && int64(found[0].Attempt) < int64(m.Old.RestartCount) {
		return s.anew(m.Old) // the one that was told of last has been removed
	}
	s.fact, s.attempt = found[0], found[0].Attempt
	s.streak = int(s.attempt)
	if len(found) > 1 && found[1].State == container.Exited && !ofSame(s.status.LastTerminationState.Terminated, found[1].ID) {
		s.status.LastTerminationState.Terminated = pod.Terminated(found[1], "")
	}
	s.identify()
	var todo []effect
	for _, c := range found {
		if c.Attempt+1 < s.attempt {
			todo = append(todo, s.cleaned(c.Attempt))
		}
	}
	switch s.fact.State {
	case container.Running:
		s.turned(running)
		s.status.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: pod.Time(s.fact.StartedAt)}}
		s.fit()
		s.remember(m.Old)
		// It may have ended since it was seen, and its event gone by.
		todo = append(todo, report{}, inspect{s.id()})
		return append(todo, s.changed(now)...)
	case container.Created:
		s.turned(waiting)
		return append(append(todo, report{}), s.ask()...)
	default:
		s.turned(checking) // its message has to be read
		return append(todo, inspect{s.id()})
	}
}

func ofSame(t *corev1.ContainerStateTerminated, id string) bool {
	return t != nil && t.ContainerID == pod.FullID(id)
}

// done begins with an init container that has done its work, and was removed
// since.
func (s *state) done(old *corev1.ContainerStatus) []effect {
	if old != nil {
		s.status, s.attempt = *old.DeepCopy(), uint32(old.RestartCount)
	}
	if !completed(s.status.State.Terminated) {
		s.status.State = corev1.ContainerState{Terminated: pod.Completed()}
	}
	s.unfit()
	s.turned(ended)
	return []effect{report{}}
}

func completed(t *corev1.ContainerStateTerminated) bool { return t != nil && t.ExitCode == 0 }

// anew begins with no container in the runtime: the first one, or the one
// after a container that somebody removed.
func (s *state) anew(old *corev1.ContainerStatus) []effect {
	if old != nil && old.ContainerID != "" {
		s.status.ContainerID, s.status.ImageID = old.ContainerID, old.ImageID
		s.attempt = uint32(old.RestartCount)
		s.streak = int(old.RestartCount)
		t := old.State.Terminated
		if t == nil && old.State.Running != nil {
			t = pod.Lost("", old.State.Running.StartedAt.Time)
			t.ContainerID = old.ContainerID
		}
		if t != nil {
			if !pod.Restarts(s.pod, s.spec, t.ExitCode) && !(s.role == pod.Init && completed(t)) {
				s.turned(ended)
				s.status.State = corev1.ContainerState{Terminated: t}
				return []effect{report{}}
			}
			s.status.LastTerminationState.Terminated = t
		}
		s.attempt++
	}
	s.turned(waiting)
	return append([]effect{report{}}, s.ask()...)
}

// revised takes the pod as it now is; false if it has no such container.
func (s *state) revised(p *corev1.Pod, name string) bool {
	s.pod = p
	part := pod.PartOf(p, name)
	if part.Container == nil {
		return false
	}
	s.spec, s.role = part.Container, part.Role
	return true
}

// identify shows which container the status is of.
func (s *state) identify() {
	s.status.ContainerID = pod.FullID(s.fact.ID)
	s.status.RestartCount = int32(s.fact.Attempt)
	if name, err := container.ImageName(s.fact.Image); err == nil {
		s.status.Image = name
	}
	s.status.ImageID = s.fact.ImageRef
	s.status.Resources = s.spec.Resources.DeepCopy()
	s.status.AllocatedResources = s.spec.Resources.Requests.DeepCopy()
}

// unfit shows a container that does not run.
func (s *state) unfit() { s.set(false, false) }

// fit shows one that runs and was not asked anything yet: without a probe to
// say otherwise, it has started and is ready.
func (s *state) fit() { s.set(s.spec.StartupProbe == nil, s.spec.ReadinessProbe == nil) }

// set shows whether the container has started, and whether it is ready: an
// init container is when it has done its work.
func (s *state) set(started, ready bool) {
	s.status.Started, s.status.Ready = &started, started && ready
	if s.role == pod.Init {
		s.status.Ready = completed(s.status.State.Terminated)
	}
}

// remember shows what was last known of a container that ran on while its
// worker did not, until its probes say otherwise.
func (s *state) remember(old *corev1.ContainerStatus) {
	if old == nil || old.ContainerID != s.status.ContainerID || old.State.Running == nil {
		return
	}
	started := *s.status.Started || old.Started != nil && *old.Started
	s.set(started, s.spec.ReadinessProbe == nil || old.Ready)
}

// health takes what a probe has come to.
func (s *state) health(m pod.Health, now time.Time) []effect {
	if s.phase != running || m.ID != s.id() || pod.ProbeOf(s.spec, m.Kind) == nil {
		return nil
	}
	started, ready := *s.status.Started, s.status.Ready
	switch {
	case m.Kind == pod.Readiness:
		s.set(started, m.Healthy)
	case m.Kind == pod.Startup && m.Healthy:
		s.set(true, s.spec.ReadinessProbe == nil)
	case m.Healthy || s.goal != keep:
		return nil
	default:
		why, grace := pod.Unhealthy(s.pod, s.spec, m.Kind)
		return append([]effect{report{}}, s.quit(heal, grace, now, why)...)
	}
	if *s.status.Started == started && s.status.Ready == ready {
		return nil
	}
	return []effect{report{}}
}

// revise takes a changed pod. A container of another definition ends, and runs
// again by the new one whatever its policy. What the pod refers to matters when
// the container is made.
func (s *state) revise(m pod.Revise, now time.Time) []effect {
	if s.phase == idle || s.spec == nil {
		return nil
	}
	s.sources = m.Sources
	before := s.spec.Image
	if !s.revised(m.Pod, s.spec.Name) {
		return nil
	}
	if s.spec.Image != before && s.phase != running && s.phase != making && s.phase != ended && s.phase != checking {
		s.image, s.absences, s.failed = nil, 0, 0
		s.turned(waiting)
		return s.ask()
	}
	if s.unset {
		return s.try()
	}
	if s.spec.Image != before && s.phase == running {
		s.image = nil // whatever it is ended for, the next one is of the new image
	}
	return s.changed(now)
}

// changed ends a container whose definition is no longer the pod's.
func (s *state) changed(now time.Time) []effect {
	if s.phase != running || s.goal != keep || s.role == pod.Init || s.fact.Hash == "" || s.fact.Hash == pod.Hash(s.spec) {
		return nil
	}
	why := fmt.Sprintf("Container %s definition changed, will be restarted", s.spec.Name)
	if s.role == pod.Sidecar {
		why = fmt.Sprintf("Init container %s definition changed", s.spec.Name)
	}
	return s.quit(renew, pod.Grace(s.pod), now, why)
}

// ask asks for the image if it is not known, else goes on.
func (s *state) ask() []effect {
	if s.image != nil {
		return s.try()
	}
	if _, err := container.ImageName(s.spec.Image); err != nil {
		return s.misnamed(err)
	}
	s.arrived = false
	s.turn++
	s.asked = s.turn
	return []effect{find{s.spec.Image, s.spec.ImagePullPolicy}, wait{overdue, unanswered{s.turn}}}
}

// unanswered: images has said nothing for long. Ask again, also while it pulls:
// it may have forgotten.
func (s *state) unanswered(turn uint64) []effect {
	if turn != s.asked || s.phase != waiting || s.image != nil {
		return nil
	}
	return s.ask()
}

// misnamed waits for another name: the API allows to change it.
func (s *state) misnamed(err error) []effect {
	message := fmt.Sprintf("Failed to apply default image tag %q: %v", s.spec.Image, err)
	s.turned(waiting)
	s.explain("InvalidImageName", message)
	return []effect{
		note{corev1.EventTypeWarning, "InspectFailed", message},
		note{corev1.EventTypeWarning, "Failed", "Error: InvalidImageName"},
		report{},
	}
}

// renewed wants the image again for another attempt, if its policy does.
func (s *state) renewed() {
	if s.arrived = false; s.spec.ImagePullPolicy == corev1.PullAlways {
		s.image = nil
	}
}

// pulls hears that images asks the registry.
func (s *state) pulls(m pod.ImagePulling, now time.Time) []effect {
	if s.phase != waiting || s.image != nil || m.Name != s.spec.Image {
		return nil
	}
	s.pulling = now
	todo := []effect{note{corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", m.Name)}}
	if len(m.Lacking) > 0 {
		todo = append(todo, podNote{corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf(
			"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(m.Lacking, ", "))})
	}
	return todo
}

// found takes what images says: an answer, or later that the image has come.
func (s *state) found(m pod.ImageFound, now time.Time) []effect {
	if s.phase != waiting || s.image != nil || m.Name != s.spec.Image || m.Err != nil && s.asked == 0 {
		return nil
	}
	s.asked = 0
	began := s.pulling
	s.pulling = time.Time{}
	switch {
	case m.Err == nil:
		s.image, s.absences, s.arrived = &m.Image, 0, m.Asked
		s.turned(waiting)
		var todo []effect
		if m.Asked {
			todo = append(todo, note{corev1.EventTypeNormal, "Pulled", fmt.Sprintf(
				"Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
				m.Name, m.Took.Truncate(time.Millisecond), max(m.Took, now.Sub(began)).Truncate(time.Millisecond), m.Image.Size)})
		}
		return append(todo, s.try()...)
	case passing(m.Err):
		s.turned(waiting)
		return []effect{wait{soon, retry{s.turn}}}
	case m.Asked:
		return s.unpulled(m)
	case !errors.Is(m.Err, container.ErrNotFound):
		s.turned(waiting)
		message := fmt.Sprintf("Failed to inspect image %q: %v", m.Name, m.Err)
		s.explain("ImageInspectError", message)
		return []effect{note{corev1.EventTypeWarning, "InspectFailed", message}, report{}, wait{s.delay(s.failed + 1), retry{s.turn}}}
	}
	message := fmt.Sprintf("Container image %q is not present with pull policy of Never", m.Name)
	s.turned(waiting)
	s.explain("ErrImageNeverPull", message)
	return []effect{
		note{corev1.EventTypeWarning, "ErrImageNeverPull", message},
		note{corev1.EventTypeWarning, "Failed", "Error: ErrImageNeverPull"},
		report{},
	}
}

// unpulled backs off from a pull that failed. Should the image come by other
// ways meanwhile, images tells of it.
func (s *state) unpulled(m pod.ImageFound) []effect {
	s.absences++
	why := m.Err.Error()
	if errors.Is(m.Err, container.ErrUnreachable) {
		why += "; without a registry, load it with: troupe image load FILE"
	}
	s.turned(waiting)
	s.explain("ErrImagePull", why)
	s.next = &corev1.ContainerStateWaiting{
		Reason:  "ImagePullBackOff",
		Message: fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", m.Name, why),
	}
	return []effect{
		note{corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", m.Name, why)},
		note{corev1.EventTypeWarning, "Failed", "Error: ErrImagePull"},
		report{},
		wait{shown, settled{s.turn}},
		wait{s.delay(s.absences), retry{s.turn}},
	}
}

// settled shows the back-off that a failure caused.
func (s *state) settled(turn uint64) []effect {
	if turn != s.turn || s.next == nil {
		return nil
	}
	next := s.next
	s.next = nil
	s.explain(next.Reason, next.Message)
	todo := []effect{report{}}
	if next.Reason == "ImagePullBackOff" {
		todo = append(todo,
			note{corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", s.spec.Image)},
			note{corev1.EventTypeWarning, "Failed", "Error: ImagePullBackOff"})
	}
	return todo
}

// explain says what the container waits for.
func (s *state) explain(reason, message string) {
	if t := s.status.State.Terminated; t != nil {
		s.status.LastTerminationState.Terminated = t
	}
	s.status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	s.unfit()
}

// live tells whether something may run.
func (s *state) live() bool { return s.phase == checking || s.phase == making || s.phase == running }

// enter says that the sandbox is there.
func (s *state) enter(m pod.Enter) []effect {
	if s.phase == idle || s.goal == stop || m.Number <= s.entered {
		return nil
	}
	s.entered, s.addr, s.mounts = m.Number, m.Addr, m.Mounts
	if s.goal == leave && !s.live() {
		s.goal = keep
	}
	return s.try()
}

// try makes the container once nothing is missing.
func (s *state) try() []effect {
	if s.phase != waiting || s.entered == 0 || s.image == nil || s.goal != keep {
		return nil
	}
	spec, err := pod.ContainerSpec(s.pod, s.spec, pod.Setting{
		Machine: s.machine, Addr: s.addr, Sources: s.sources, Image: *s.image, Mounts: s.mounts,
	}, s.attempt)
	if err != nil {
		todo := s.unmade("CreateContainerConfigError", err)
		s.unset = true
		return todo
	}
	s.turned(making)
	s.exited, s.unsure = false, nil
	return []effect{launch{spec}}
}

// unmade backs off from a container that cannot be made.
func (s *state) unmade(reason string, err error) []effect {
	s.failed++
	s.turned(waiting)
	s.explain(reason, err.Error())
	return []effect{
		note{corev1.EventTypeWarning, "Failed", fmt.Sprintf("Error: %v", err)},
		report{},
		wait{s.delay(s.failed), retry{s.turn}},
	}
}

// retry ends a wait: for a moment, or a back-off.
func (s *state) retry(turn uint64) []effect {
	if turn != s.turn {
		return nil
	}
	switch s.phase {
	case backingOff:
		s.attempt++
		s.turned(waiting)
	case waiting:
	default:
		return nil
	}
	s.renewed()
	return s.ask()
}

// lookIn asks the runtime in a while how the container stands.
func (s *state) lookIn(d time.Duration) effect {
	s.looks++
	return wait{d, look{s.looks}}
}

func (s *state) look(turn uint64) []effect {
	if turn != s.looks || s.phase != checking && s.phase != running {
		return nil
	}
	return []effect{inspect{s.id()}}
}

// passing tells whether an error is of the runtime as a whole, or of a moment.
func passing(err error) bool {
	return errors.Is(err, container.ErrGone) || errors.Is(err, container.ErrBusy)
}

// launched says how far a container got.
func (s *state) launched(m launched, now time.Time) []effect {
	if s.phase != making || m.id != s.id() {
		return nil
	}
	var todo []effect
	if m.created {
		if !s.arrived {
			todo = append(todo, note{corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", s.spec.Image)})
		}
		todo = append(todo, note{corev1.EventTypeNormal, "Created", "Container created"})
		if s.attempt > 1 {
			todo = append(todo, s.cleaned(s.attempt-2))
		}
	}
	if m.created && m.err != nil && !errors.Is(m.err, container.ErrInvalid) {
		// Only the answer may be lost, or it has run and ended already.
		s.turned(checking)
		s.unsure = m.err
		return append(todo, inspect{s.id()})
	}
	if m.err != nil {
		s.turned(waiting)
		if s.goal != keep {
			return append(todo, s.quitted()...)
		}
	}
	switch {
	case m.err == nil:
		return append(todo, s.started(m.fact, now)...)
	case m.created:
		return append(todo, s.unstarted(m.err, now)...)
	case passing(m.err):
		return []effect{wait{soon, retry{s.turn}}}
	case errors.Is(m.err, container.ErrNotReady):
		return s.homeless()
	case errors.Is(m.err, container.ErrNotFound):
		s.image = nil
		return s.ask()
	}
	return s.unmade("CreateContainerError", m.err)
}

// unstarted ends an attempt whose container was made and cannot be started.
func (s *state) unstarted(err error, now time.Time) []effect {
	s.fact = container.Container{ID: s.id(), Attempt: s.attempt, Image: s.spec.Image, ImageID: s.image.ID, ImageRef: s.image.Ref(s.spec.Image)}
	if t := s.status.State.Terminated; t != nil {
		s.status.LastTerminationState.Terminated = t
	}
	s.identify()
	todo := []effect{note{corev1.EventTypeWarning, "Failed", fmt.Sprintf("Error: %v", err)}}
	first := &corev1.ContainerStateWaiting{Reason: "RunContainerError", Message: err.Error()}
	return append(todo, s.end(pod.Unstarted(s.id(), now, err), now, first)...)
}

// started takes a container that was made.
func (s *state) started(c container.Container, now time.Time) []effect {
	var todo []effect
	if s.phase == making {
		todo = append(todo, note{corev1.EventTypeNormal, "Started", "Container started"})
	}
	if t := s.status.State.Terminated; t != nil {
		s.status.LastTerminationState.Terminated = t
	}
	s.fact, s.since, s.failed = c, now, 0
	s.identify()
	fresh := s.phase == making
	s.turned(running)
	alive := !s.exited && c.State == container.Running
	if l := s.spec.Lifecycle; fresh && alive && s.goal == keep && l != nil && l.PostStart != nil {
		s.explain(pod.ReasonCreating, "") // until the hook is through
		return append(todo, report{}, s.begin(afterStart, l.PostStart))
	}
	s.runs()
	if alive {
		todo = append(todo, report{})
	} else {
		s.unfit()
		todo = append(todo, inspect{s.id()})
	}
	if s.goal == keep {
		return append(todo, s.changed(now)...)
	}
	return append(todo, s.signal(now)...)
}

// runs shows that the container does.
func (s *state) runs() {
	s.heals = false
	s.status.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: pod.Time(s.fact.StartedAt)}}
	s.fit()
}

func (s *state) cleaned(attempt uint32) effect {
	return clean{
		id:  pod.ContainerID(s.pod.UID, s.spec.Name, attempt),
		log: pod.LogPath(s.pod, s.spec.Name, s.machine, attempt),
	}
}

// happened hears from the runtime that something became of a container.
func (s *state) happened(e container.Event) []effect {
	if s.spec == nil || e.ContainerID != s.id() || e.Kind != container.ContainerExited && e.Kind != container.Removed {
		return nil
	}
	switch s.phase {
	case making, checking:
		s.exited = true
	case running:
		return []effect{inspect{s.id()}}
	}
	return nil
}

// seen compares what the machine was seen to hold with what is believed, and
// removes what does not belong.
func (s *state) seen(found []container.Container) []effect {
	if s.spec == nil || s.phase == idle {
		return nil
	}
	var todo []effect
	alive := false
	for _, c := range found {
		switch {
		case c.ID == s.id():
			alive = c.State == container.Running
		case c.Attempt+1 == s.attempt && c.ID == pod.ContainerID(s.pod.UID, s.spec.Name, c.Attempt):
		default:
			todo = append(todo, clean{id: c.ID})
		}
	}
	if s.phase == running && !alive {
		todo = append(todo, inspect{s.id()})
	}
	return todo
}

// inspected takes how the runtime says that the container stands.
func (s *state) inspected(m inspected, now time.Time) []effect {
	if s.spec == nil || m.id != s.id() || s.phase != running && s.phase != checking {
		return nil
	}
	switch {
	case errors.Is(m.err, container.ErrNotFound):
		return s.end(pod.Lost(m.id, s.fact.StartedAt), now, nil)
	case m.err != nil:
		return []effect{s.lookIn(soon)}
	case m.fact.State == container.Exited:
		s.fact = m.fact
		return s.end(pod.Terminated(m.fact, m.message), now, nil)
	case m.fact.State == container.Created:
		err := s.unsure
		s.unsure = nil
		s.turned(waiting)
		switch {
		case s.goal != keep:
			return s.quitted()
		case err == nil || errors.Is(err, container.ErrNotReady):
			return s.homeless()
		case passing(err):
			return []effect{wait{soon, retry{s.turn}}}
		}
		return s.unstarted(err, now)
	case s.phase == checking:
		return s.started(m.fact, now)
	case !s.killAt.IsZero() && !now.Before(s.killAt):
		return s.kill()
	}
	return nil
}

// homeless says that the sandbox is not there after all.
func (s *state) homeless() []effect {
	s.lost, s.entered = s.entered, 0
	return []effect{report{}}
}

// end takes the end of a container, and decides what follows. first is what
// to show before the back-off, if not its exit.
func (s *state) end(t *corev1.ContainerStateTerminated, now time.Time, first *corev1.ContainerStateWaiting) []effect {
	var late time.Duration // it ended so long ago
	ran := now.Sub(s.since)
	switch {
	case t.Reason == pod.ReasonStartError:
		ran = 0
	case s.since.IsZero(): // adopted
		if ran = t.FinishedAt.Sub(t.StartedAt.Time); t.FinishedAt.IsZero() {
			ran = now.Sub(t.StartedAt.Time)
		}
		if s.phase == checking && !t.FinishedAt.IsZero() {
			late = now.Sub(t.FinishedAt.Time)
		}
	}
	s.since, s.exited = time.Time{}, false
	s.killAt, s.sent, s.signaled, s.told = time.Time{}, false, false, false
	s.killTurn++
	mishap := s.mishap != nil
	if mishap && first == nil {
		first = s.mishap
	}
	s.mishap, s.hooking, s.heals = nil, none, false
	s.status.State = corev1.ContainerState{Terminated: t}
	s.unfit()
	again := pod.Restarts(s.pod, s.spec, t.ExitCode)
	switch s.goal {
	case stop:
		s.turned(ended)
		return []effect{report{}}
	case renew:
		s.goal, s.streak = keep, 0
		return s.restart()
	case heal:
		s.goal = keep
		if !mishap {
			again = pod.RestartsUnhealthy(s.pod, s.spec)
			s.heals = again
		}
	case leave:
		if s.entered > s.left {
			s.goal = keep
		}
		if again || s.role == pod.Init && completed(t) {
			return s.restart()
		}
	}
	if !again {
		s.turned(ended)
		return []effect{report{}}
	}
	if ran >= backoffReset || t.Reason == pod.ReasonUnknown {
		s.streak = 0
	}
	whole := s.delay(s.streak)
	if t.Reason == pod.ReasonStatusUnknown && ran >= lived {
		whole = 0 // somebody removed it: that is no crash
	}
	s.streak++
	delay := whole - max(late, 0)
	if delay <= 0 {
		if first != nil {
			s.explain(first.Reason, first.Message)
		}
		return s.restart()
	}
	s.turned(backingOff)
	loop := &corev1.ContainerStateWaiting{
		Reason:  "CrashLoopBackOff",
		Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", whole, s.spec.Name, pod.Format(s.pod)),
	}
	todo := []effect{note{
		corev1.EventTypeWarning, "BackOff",
		fmt.Sprintf("Back-off restarting failed container %s in pod %s", s.spec.Name, pod.Format(s.pod)),
	}}
	if first != nil {
		s.next = loop
		todo = append(todo, wait{shown, settled{s.turn}})
	} else {
		first = loop
	}
	s.explain(first.Reason, first.Message)
	return append(todo, report{}, wait{delay, retry{s.turn}})
}

// restart makes the next attempt at once.
func (s *state) restart() []effect {
	s.attempt++
	s.renewed()
	s.turned(waiting)
	return append([]effect{report{}}, s.ask()...)
}

// delay is the back-off before the restart that follows n others in a row.
func (s *state) delay(n int) time.Duration {
	if n <= 0 {
		return 0
	}
	return min(s.backoff<<min(n-1, 20), max(backoffMax, s.backoff))
}

// stop ends the container for good.
func (s *state) stop(m pod.Stop, now time.Time) []effect {
	if s.phase == idle {
		return []effect{report{}}
	}
	if m.Signaled {
		s.sent, s.signaled = true, true
	}
	return s.quit(stop, m.Grace, now, fmt.Sprintf("Stopping container %s", s.spec.Name))
}

// leave ends the container, to run in another sandbox.
func (s *state) leave(m pod.Leave, now time.Time) []effect {
	if s.phase == idle || s.goal == stop {
		return []effect{report{}}
	}
	s.entered, s.left = 0, m.Number
	if s.role == pod.Init && s.phase == ended && completed(s.status.State.Terminated) {
		s.goal = leave
		return s.restart() // when it is its turn in the next sandbox
	}
	return s.quit(leave, m.Grace, now, fmt.Sprintf("Stopping container %s", s.spec.Name))
}

// quit ends the container by grace at the latest.
func (s *state) quit(g goal, grace time.Duration, now time.Time, why string) []effect {
	s.goal, s.why = g, why
	if !s.live() {
		return s.quitted()
	}
	if at := now.Add(grace); s.killAt.IsZero() || at.Before(s.killAt) {
		s.killAt = at
		s.killTurn++
	}
	if s.phase != running {
		return nil // as soon as it is known how it stands
	}
	todo := s.signal(now)
	if s.signaled {
		todo = append(todo, report{})
	}
	return todo
}

// signal asks the container to end, and sees to it that it does.
func (s *state) signal(now time.Time) []effect {
	left := s.killAt.Sub(now)
	if left <= 0 {
		return s.kill()
	}
	var todo []effect
	if s.armed != s.killTurn {
		s.armed = s.killTurn
		todo = append(todo, wait{left, killDue{s.killTurn}})
	}
	if s.sent || s.hooking == beforeEnd {
		return todo
	}
	todo = append(todo, s.killing()...)
	if l := s.spec.Lifecycle; l != nil && l.PreStop != nil && s.hooking != ending {
		return append(todo, s.begin(beforeEnd, l.PreStop))
	}
	s.sent = true
	return append(todo, signal{s.id(), cmp.Or(s.fact.StopSignal, syscall.SIGTERM)})
}

// killing tells people, once.
func (s *state) killing() []effect {
	if s.told {
		return nil
	}
	s.told = true
	return []effect{note{corev1.EventTypeNormal, "Killing", s.why}}
}

// kill ends it now, and looks whether it did.
func (s *state) kill() []effect {
	todo := []effect{signal{s.id(), syscall.SIGKILL}, s.lookIn(recheck)}
	if !s.sent {
		s.sent = true
		todo = append(s.killing(), todo...)
	}
	return todo
}

func (s *state) killDue(turn uint64) []effect {
	switch {
	case turn != s.killTurn || s.phase != running:
		return nil
	case s.hooking == beforeEnd:
		return s.hooked(hooked{turn: s.hooks}, s.killAt) // it has had its time
	}
	return s.kill()
}

// signaledNow hears whether a signal arrived.
func (s *state) signaledNow(m signaled) []effect {
	if s.phase != running || m.id != s.id() {
		return nil
	}
	switch {
	case errors.Is(m.err, container.ErrNotFound):
		return []effect{inspect{s.id()}}
	case m.err != nil:
		s.sent = false
		return []effect{wait{soon, insist{s.killTurn}}}
	}
	s.signaled = true
	return []effect{report{}}
}

func (s *state) insist(turn uint64, now time.Time) []effect {
	if turn != s.killTurn || s.phase != running {
		return nil
	}
	return s.signal(now)
}

// quitted is an end of what does not run.
func (s *state) quitted() []effect {
	if s.goal == stop && s.phase != ended {
		last := s.status.LastTerminationState.Terminated
		if s.status.State.Waiting != nil && last != nil && last.ContainerID == s.status.ContainerID {
			s.status.State = corev1.ContainerState{Terminated: last} // it waited for nothing any more
			s.status.LastTerminationState = corev1.ContainerState{}
		}
		s.turned(ended)
	}
	return []effect{report{}}
}

// view is what the pod's worker is told.
func (s *state) view() pod.ContainerReport {
	r := pod.ContainerReport{
		Status:   *s.status.DeepCopy(),
		Over:     s.phase == ended && s.goal != stop,
		Lost:     s.lost,
		Stopped:  s.goal == stop && !s.live(),
		Signaled: s.goal == stop && (s.signaled || !s.live()),
		ID:       s.fact.ID,
		Since:    s.since,
		Adopted:  s.since.IsZero(),
		Ending:   s.goal != keep,
		Heals:    s.heals,
	}
	if r.Adopted {
		r.Since = s.fact.StartedAt
	}
	if !s.live() {
		r.Left = s.left
	}
	return r
}
