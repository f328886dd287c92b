package podworker

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

const (
	again    = 200 * time.Millisecond // after "not yet"
	retryMin = time.Second            // after a failure; doubles
	retryMax = 2 * time.Minute
	overdue  = time.Minute // an answer of volumes that takes longer was lost with it
)

// phase is where the pod stands on this machine.
type phase uint8

const (
	idle      phase = iota // nothing is known yet
	preparing              // its sandbox and volumes are being made
	active                 // its containers run as they like
	remaking               // its containers leave a sandbox that is broken
	finishing              // all has ended by itself; the registry is being told
	stopping               // its containers end for good
	removing               // its sandbox, volumes and files are being removed
	over                   // nothing of it is left, except logs of a pod that is not deleted
)

// state is a pod's worker's whole memory. Its methods read no clock and do no
// I/O; they return what must happen next.
type state struct {
	machine pod.Machine

	pod     *corev1.Pod
	sources api.Sources // what it refers to
	gone    bool        // the registry has it no more
	phase   phase
	turn    uint64 // of the phase: what belongs to an earlier one means nothing

	children map[string]*child
	names    []string // of the children, in the pod's order
	probes   []*prober

	sandbox *container.Sandbox
	making  bool // the runtime is at the sandbox
	mounts  map[string][]container.Mount
	mounted bool
	number  uint64 // of the last Enter or Leave
	failed  int    // times in a row that the sandbox could not be made or removed
	unready int    // times in a row that the volumes could not be
	asked   uint64 // questions to volumes: timers of an earlier one mean nothing
	asking  bool   // the last one has no answer yet
	stale   bool   // and what the volumes are made of has changed since
	steps   steps  // of removing

	killAt time.Time // containers are killed then at the latest; zero: nobody said
	saved  time.Time // the killAt that is on disk
	saving int       // writes of it that are under way

	due     time.Time   // the deadline that a timer is set to
	failure pod.Failure // why it ends before its containers do by themselves

	old     *corev1.PodStatus // as last reported
	sent    uint64            // reports
	written uint64            // of them known to be in the registry
}

// child is a container's worker.
type child struct {
	role    pod.Role
	spawned bool                  // there is one: its turn has come, or something of it was found
	found   []container.Container // what it is to begin with, once
	fresh   bool                  // found has not been given yet
	ran     bool                  // it has had its Run
	report  *pod.ContainerReport  // the last one
	passed  bool                  // of an init container: what comes after it may begin
	entered uint64                // the number of the last Enter that it was told
	killAt  time.Time             // of the last Stop
}

// steps are the parts of removing that are done.
type steps struct{ sandbox, volumes, disk bool }

// effect is something to do.
type effect interface{ effect() }

type (
	spawn      struct{ name string }
	spawnProbe struct{ name string }
	tell       struct {
		name    string
		message any
	}
	search struct {
		name string
		ids  []string
	}
	runSandbox    struct{ spec container.SandboxSpec }
	seekSandbox   struct{}
	removeSandbox struct{}
	purge         struct {
		ids  []string
		turn uint64
	}
	mount      struct{}
	unmount    struct{}
	dismiss    struct{}
	loadGrace  struct{}
	saveGrace  struct{ left time.Duration }
	removeDisk struct{}
	discard    struct{ id string }
	report     struct {
		status *corev1.PodStatus
		number uint64
	}
	note  struct{ kind, reason, message string }
	ended struct{}
	wait  struct {
		delay   time.Duration
		message any
	}
)

func (spawn) effect()         {}
func (spawnProbe) effect()    {}
func (tell) effect()          {}
func (search) effect()        {}
func (runSandbox) effect()    {}
func (seekSandbox) effect()   {}
func (removeSandbox) effect() {}
func (purge) effect()         {}
func (mount) effect()         {}
func (unmount) effect()       {}
func (dismiss) effect()       {}
func (loadGrace) effect()     {}
func (saveGrace) effect()     {}
func (removeDisk) effect()    {}
func (discard) effect()       {}
func (report) effect()        {}
func (note) effect()          {}
func (ended) effect()         {}
func (wait) effect()          {}

func (s *state) turned(p phase) {
	s.phase = p
	s.turn++
	s.failed = 0
}

// deleted tells whether the pod is on its way out.
func (s *state) deleted() bool { return s.gone || s.pod.DeletionTimestamp != nil }

func terminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// keep begins with what there is.
func (s *state) keep(m pod.Keep, now time.Time) []effect {
	if s.phase != idle {
		return nil // it has begun
	}
	s.pod, s.gone, s.sources = m.Pod, m.Gone, m.Sources
	s.old, s.children = m.Pod.Status.DeepCopy(), map[string]*child{}
	byName := map[string][]container.Container{}
	leaves := false // something has to leave a sandbox that is broken
	for _, c := range m.Found.Containers {
		byName[c.Name] = append(byName[c.Name], c)
		leaves = leaves || c.State == container.Running || pod.PartOf(m.Pod, c.Name).Role == pod.Init
	}
	nothing := m.Found.Sandbox == nil && len(m.Found.Containers) == 0
	if terminal(m.Pod.Status.Phase) || s.deleted() && nothing {
		return s.remove(now)
	}
	s.sandbox = m.Found.Sandbox
	ready := s.sandbox != nil && s.sandbox.Ready
	passed, blocked := 0, false
	if ready {
		passed = passedBy(m.Pod, m.Found.Containers)
	}
	var todo []effect
	for i, part := range pod.Parts(m.Pod) {
		c := &child{role: part.Role, found: byName[part.Name], fresh: true, passed: i < passed}
		s.names = append(s.names, part.Name)
		s.children[part.Name] = c
		if c.spawned = !blocked || len(c.found) > 0; c.spawned {
			todo = append(todo, spawn{part.Name})
		}
		blocked = blocked || c.blocks()
		delete(byName, part.Name)
	}
	todo = append(todo, s.probe()...)
	for _, c := range m.Found.Containers {
		if _, foreign := byName[c.Name]; foreign {
			todo = append(todo, discard{c.ID})
		}
	}
	if s.deleted() {
		s.turned(stopping)
		if s.gone {
			s.killAt = now
			return append(todo, s.stop(now)...)
		}
		return append(todo, loadGrace{})
	}
	todo = append(append(todo, s.mount()...), s.watch(now)...)
	switch {
	case nothing:
		s.turned(preparing)
		return append(todo, s.makeSandbox()...)
	case ready:
		s.turned(preparing)
		return todo
	case leaves:
		return append(todo, s.remake(now)...)
	}
	s.turned(preparing)
	return append(append(todo, sandboxChanged), s.makeSandbox()...)
}

var sandboxChanged = note{corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created."}

// makeSandbox makes or mends it.
func (s *state) makeSandbox() []effect {
	spec, err := pod.SandboxSpec(s.pod, s.machine)
	if err != nil {
		return s.retrySandbox(err)
	}
	s.making = true
	return []effect{runSandbox{spec}}
}

// sandboxMade takes what became of making it.
func (s *state) sandboxMade(m sandboxMade, now time.Time) []effect {
	s.making = false
	if m.err == nil {
		s.sandbox, s.failed = &m.sandbox, 0
	}
	switch {
	case s.phase == stopping:
		return s.settle(now)
	case s.phase != preparing:
		return nil
	case m.err == nil:
		return s.enter(now)
	case errors.Is(m.err, container.ErrGone), errors.Is(m.err, container.ErrNotReady):
		return []effect{wait{again, sandboxRetry{s.turn}}}
	}
	return s.retrySandbox(m.err)
}

// retrySandbox tells people why there is none, and tries again later.
func (s *state) retrySandbox(err error) []effect {
	s.failed++
	return []effect{
		note{corev1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err)},
		wait{delay(s.failed), sandboxRetry{s.turn}},
	}
}

func (s *state) sandboxRetry(turn uint64) []effect {
	if turn != s.turn || s.phase != preparing || s.making || s.sandbox != nil && s.sandbox.Ready {
		return nil
	}
	return s.makeSandbox()
}

// delay doubles.
func delay(n int) time.Duration { return min(retryMin<<min(n-1, 20), retryMax) }

// volumesMounted takes what became of mounting.
func (s *state) volumesMounted(m pod.Mounted, now time.Time) []effect {
	if s.phase == idle || m.UID != s.pod.UID || !s.asking || s.phase >= finishing {
		return nil // in idle, it was asked in this actor's earlier life
	}
	s.asking = false
	s.asked++ // timers are void
	var todo []effect
	if m.Err == nil {
		s.mounts, s.mounted, s.unready = m.Mounts, true, 0
	} else {
		s.unready++
		for _, err := range each(m.Err) {
			todo = append(todo, note{corev1.EventTypeWarning, "FailedMount", err.Error()})
		}
	}
	switch {
	case s.stale:
		todo = append(todo, s.mount()...)
	case m.Err != nil:
		todo = append(todo, wait{delay(s.unready), mountRetry{s.asked}})
	}
	if m.Err != nil {
		// The address goes into the status now: a mount's path may be made of it.
		return append(todo, s.publish(now)...)
	}
	return append(todo, s.enter(now)...)
}

// each is the errors that err joins.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// mount asks volumes, and again if they say nothing for long.
func (s *state) mount() []effect {
	s.asked++
	s.asking, s.stale = true, false
	return []effect{mount{}, wait{overdue, mountRetry{s.asked}}}
}

// remount asks volumes for files that are as the sources now are.
func (s *state) remount() []effect {
	if s.asking {
		s.stale = true
		return nil
	}
	return s.mount()
}

func (s *state) mountRetry(turn uint64) []effect {
	if turn != s.asked || s.phase < preparing || s.phase >= finishing {
		return nil
	}
	return s.mount()
}

// enter lets the containers run once all is there.
func (s *state) enter(now time.Time) []effect {
	if s.phase != preparing || !s.mounted || s.sandbox == nil || !s.sandbox.Ready || s.making {
		return nil
	}
	s.turned(active)
	s.number++
	return append(s.letIn(), s.publish(now)...)
}

// remake lets the containers leave a sandbox that is broken. In the next one
// init containers run again.
func (s *state) remake(now time.Time) []effect {
	s.turned(remaking)
	s.sandbox = nil
	s.number++
	todo := []effect{sandboxChanged}
	for _, name := range s.names {
		s.children[name].passed = false
		if s.children[name].ran {
			todo = append(todo, tell{name, s.leave()})
		}
	}
	return append(todo, s.publish(now)...)
}

// remade: all have left, so the next sandbox can be made.
func (s *state) remade() []effect {
	s.turned(preparing)
	if ids := s.purged(); len(ids) > 0 {
		return []effect{purge{ids, s.turn}}
	}
	return s.makeSandbox()
}

// cleared takes what became of removing what must run again.
func (s *state) cleared(m cleared) []effect {
	switch {
	case m.turn != s.turn || s.phase != preparing:
		return nil
	case m.err != nil:
		return []effect{wait{again, clearAgain{purge{m.ids, m.turn}}}}
	}
	return s.makeSandbox()
}

func (s *state) leave() pod.Leave { return pod.Leave{Number: s.number, Grace: s.grace()} }

// hello is a child's: it has started, or started again.
func (s *state) hello(name string, now time.Time) []effect {
	if p := s.probeOf(name); p != nil {
		p.ready, p.told = true, nil
		return s.examine()
	}
	c := s.children[name]
	if c == nil || s.phase >= removing {
		return nil
	}
	c.entered, c.killAt = 0, time.Time{}
	if c.fresh {
		c.fresh = false
		found := c.found
		c.found = nil
		return s.start(name, found, now)
	}
	// Its containers are those of the restart count that it last told, or of
	// the one after.
	count := int32(0)
	if old := s.oldOf(name); old != nil {
		count = old.RestartCount
	}
	c.ran = false
	var ids []string
	for n := max(count-1, 0); n <= count+2; n++ {
		ids = append(ids, pod.ContainerID(s.pod.UID, name, uint32(n)))
	}
	return append(s.forget(name), search{name, ids})
}

func (s *state) oldOf(name string) *corev1.ContainerStatus {
	if c := s.children[name]; c != nil && c.report != nil {
		return &c.report.Status
	}
	for _, statuses := range [][]corev1.ContainerStatus{s.old.InitContainerStatuses, s.old.ContainerStatuses} {
		for i := range statuses {
			if statuses[i].Name == name {
				return &statuses[i]
			}
		}
	}
	return nil
}

// searched takes what was found of a child that started again.
func (s *state) searched(m searched, now time.Time) []effect {
	if m.err != nil {
		return []effect{wait{again, searchAgain{search{m.name, m.ids}}}}
	}
	return s.start(m.name, m.found, now)
}

// start gives a child what it begins with, and what stands.
func (s *state) start(name string, found []container.Container, now time.Time) []effect {
	c := s.children[name]
	if c == nil || c.ran {
		return nil
	}
	c.ran = true
	todo := []effect{tell{name, pod.Run{
		Pod: s.pod, Name: name, Found: found, Old: s.oldOf(name), Sources: s.sources,
		Done: c.role == pod.Init && c.passed,
	}}}
	switch s.phase {
	case active:
		todo = append(todo, s.letIn()...)
	case remaking:
		todo = append(todo, tell{name, s.leave()})
	case stopping:
		if !s.killAt.IsZero() {
			todo = append(todo, s.bid(now)...)
		}
	}
	return todo
}

// wish takes the pod as the registry has it.
func (s *state) wish(m pod.Wish, now time.Time) []effect {
	if s.phase == idle || s.gone {
		return nil
	}
	before, sources := s.pod, s.sources
	if m.Gone {
		s.gone = true
	} else {
		s.pod, s.sources = m.Pod, m.Sources
	}
	if s.deleted() {
		return s.depart(before, now)
	}
	var todo []effect
	pushed := !s.sources.Equal(sources) || !maps.Equal(before.Labels, s.pod.Labels) || !maps.Equal(before.Annotations, s.pod.Annotations)
	if s.phase < finishing && (pushed || !equality.Semantic.DeepEqual(before.Spec, s.pod.Spec)) {
		for _, name := range s.names {
			if s.children[name].ran {
				todo = append(todo, tell{name, pod.Revise{Pod: s.pod, Sources: s.sources}})
			}
		}
		todo = append(todo, s.watch(now)...)
	}
	if s.phase < finishing && pushed && pod.Follows(s.pod) {
		todo = append(todo, s.remount()...)
	}
	return append(todo, s.publish(now)...)
}

// depart is the beginning of the end, or a shorter way there.
func (s *state) depart(before *corev1.Pod, now time.Time) []effect {
	switch s.phase {
	case finishing:
		return s.remove(now)
	case removing:
		return s.proceed(now)
	case over:
		s.turned(removing)
		return s.proceed(now)
	}
	at := now
	if g := s.pod.DeletionGracePeriodSeconds; g != nil && !s.gone {
		if b := before.DeletionGracePeriodSeconds; s.phase == stopping && b != nil && *b <= *g {
			return nil // as it was
		}
		at = now.Add(time.Duration(*g) * time.Second)
	}
	if s.killAt.IsZero() || at.Before(s.killAt) {
		s.killAt = at
	}
	if s.phase != stopping {
		s.turned(stopping)
	}
	return s.stop(now)
}

// graceLoaded says how much of an earlier life's grace is left.
func (s *state) graceLoaded(m graceLoaded, now time.Time) []effect {
	if s.phase != stopping || !s.killAt.IsZero() {
		return nil
	}
	left := s.grace()
	if m.ok {
		left = min(left, m.left)
		s.saved = now.Add(left)
	}
	s.killAt = now.Add(left)
	return s.stop(now)
}

// stop ends the containers by killAt.
func (s *state) stop(now time.Time) []effect {
	todo := s.bid(now)
	if left := s.killAt.Sub(now); left > 0 && slices.ContainsFunc(s.names, func(name string) bool { return s.children[name].role == pod.Sidecar }) {
		todo = append(todo, wait{left, graceOver{s.killAt}})
	}
	todo = append(todo, s.examine()...)
	return append(todo, s.settle(now)...)
}

// graceOver lets nobody wait any longer for his turn to stop.
func (s *state) graceOver(at, now time.Time) []effect {
	if s.phase != stopping || !at.Equal(s.killAt) {
		return nil
	}
	return s.bid(now)
}

// reported takes a child's report.
func (s *state) reported(name string, r pod.ContainerReport, now time.Time) []effect {
	c := s.children[name]
	if c == nil || !c.ran {
		return nil
	}
	c.report = &r
	if s.phase == active && r.Lost == s.number {
		return s.remake(now)
	}
	s.pass(c)
	todo := append(append(s.letIn(), s.publish(now)...), s.examine()...)
	return append(todo, s.settle(now)...)
}

// settle goes on once all children are where they should be.
func (s *state) settle(now time.Time) []effect {
	switch s.phase {
	case preparing, active, remaking:
		switch {
		case s.spent() && !s.held():
			return s.finish(now)
		case s.spent():
			return s.wind()
		case s.phase == remaking && s.all(func(r *pod.ContainerReport) bool { return r.Left == s.number }):
			return s.remade()
		}
	case stopping:
		if s.killAt.IsZero() {
			return nil
		}
		if s.all(func(r *pod.ContainerReport) bool { return r.Stopped }) {
			switch {
			case s.making:
				return nil
			case s.deleted():
				return s.remove(now)
			}
			return s.finish(now)
		}
		todo := s.bid(now)
		if s.heard() && s.saved != s.killAt && !s.gone {
			s.saved = s.killAt
			s.saving++
			todo = append(todo, saveGrace{s.killAt.Sub(now)})
		}
		return todo
	}
	return nil
}

// graceSaved: its record is on disk, as far as it can be.
func (s *state) graceSaved(now time.Time) []effect {
	s.saving--
	if s.phase != removing || !s.steps.sandbox || !s.steps.volumes {
		return nil
	}
	return s.proceed(now)
}

// finish waits until the registry has the end of a pod that ended by itself:
// what it is told of is removed afterwards.
func (s *state) finish(now time.Time) []effect {
	s.turned(finishing)
	return append(s.publish(now), s.finished(now)...)
}

func (s *state) finished(now time.Time) []effect {
	if s.phase != finishing || s.written < s.sent {
		return nil
	}
	return s.remove(now)
}

func (s *state) writtenUp(m pod.Written, now time.Time) []effect {
	s.written = max(s.written, m.Number)
	return s.finished(now)
}

// remove takes everything down. The children have nothing left to do.
func (s *state) remove(now time.Time) []effect {
	s.turned(removing)
	s.steps = steps{}
	todo := append([]effect{dismiss{}}, s.publish(now)...)
	return append(todo, s.proceed(now)...)
}

// removed takes what became of a step of it.
func (s *state) removed(step func(*steps) *bool, err error, now time.Time) []effect {
	if s.phase != removing {
		return nil
	}
	if err == nil {
		*step(&s.steps) = true
		s.failed = 0
		return s.proceed(now)
	}
	s.failed++
	s.turn++
	todo := []effect{wait{delay(s.failed), removeRetry{s.turn}}}
	if !errors.Is(err, container.ErrGone) {
		todo = append(todo, note{corev1.EventTypeWarning, "FailedKillPod", fmt.Sprintf("error killing pod: %v", err)})
	}
	return todo
}

func (s *state) removeRetry(turn uint64, now time.Time) []effect {
	if turn != s.turn || s.phase != removing {
		return nil
	}
	return s.proceed(now)
}

// proceed does the next step of removing: the sandbox with its containers,
// then what they had mounted, then files once the pod is deleted.
func (s *state) proceed(now time.Time) []effect {
	s.turn++
	switch {
	case !s.steps.sandbox:
		return []effect{removeSandbox{}}
	case !s.steps.volumes:
		return []effect{unmount{}, wait{overdue, removeRetry{s.turn}}}
	case s.deleted() && !s.steps.disk && s.saving > 0:
		return nil // what is written now would be left behind
	case s.deleted() && !s.steps.disk:
		return []effect{removeDisk{}}
	}
	s.turned(over)
	s.sandbox = nil
	todo := s.publish(now)
	if s.deleted() {
		todo = append(todo, ended{})
	}
	return todo
}

// look compares what the machine was seen to hold with what is believed.
func (s *state) look(f pod.Found, now time.Time) []effect {
	switch s.phase {
	case idle, removing, finishing:
		return nil
	case over:
		if f.Sandbox == nil && len(f.Containers) == 0 {
			return nil
		}
		s.turned(removing)
		s.steps = steps{}
		return s.proceed(now)
	}
	var todo []effect
	byName := map[string][]container.Container{}
	for _, c := range f.Containers {
		if s.children[c.Name] == nil {
			todo = append(todo, discard{c.ID})
		}
		byName[c.Name] = append(byName[c.Name], c)
	}
	for _, name := range s.names {
		if s.children[name].ran {
			todo = append(todo, tell{name, pod.Seen{Found: byName[name]}})
		}
	}
	if s.phase == active && (f.Sandbox == nil || !f.Sandbox.Ready) {
		todo = append(todo, seekSandbox{})
	}
	return todo
}

// happened passes on what the runtime saw.
func (s *state) happened(e container.Event) []effect {
	if s.phase == idle || s.phase >= removing {
		return nil
	}
	if e.Kind == container.Removed && e.ContainerID == string(s.pod.UID) {
		if s.phase == active {
			return []effect{seekSandbox{}}
		}
		return nil
	}
	var todo []effect
	for _, name := range s.names {
		if s.children[name].ran {
			todo = append(todo, tell{name, e})
		}
	}
	return todo
}

// sandboxSeen says how the sandbox stands, asked because it seemed broken.
func (s *state) sandboxSeen(m sandboxSeen, now time.Time) []effect {
	switch {
	case s.phase != active || m.number != s.number:
		return nil
	case m.err != nil:
		return []effect{wait{again, seekAgain{s.turn}}}
	case m.sandbox != nil && m.sandbox.Ready:
		return nil
	}
	return s.remake(now)
}

func (s *state) seekAgain(turn uint64) []effect {
	if turn != s.turn || s.phase != active {
		return nil
	}
	return []effect{seekSandbox{}}
}

// publish reports the pod's status if it is another than before.
func (s *state) publish(now time.Time) []effect {
	statuses, heals := map[string]corev1.ContainerStatus{}, false
	for _, part := range pod.Parts(s.pod) {
		switch c := s.children[part.Name]; {
		case c != nil && c.report != nil:
			statuses[part.Name] = c.report.Status
			heals = heals || c.report.Heals
		case c != nil && c.spawned:
			return nil // wait until every child knows: an adopted pod does not change in between
		default:
			statuses[part.Name] = s.idleStatus(part, c != nil)
		}
	}
	status := pod.Status(pod.Facts{
		Pod: s.pod, Old: s.old, Machine: s.machine, Sandbox: s.sandbox, Containers: statuses,
		Begun: s.begun(), Held: s.held(), Heals: heals, Failure: s.failure,
		Ending: s.phase == finishing || s.phase >= removing, Ended: s.phase >= removing, Now: now,
	})
	if s.gone || equality.Semantic.DeepEqual(status, s.old) {
		return nil
	}
	s.old = status
	s.sent++
	return append([]effect{report{status, s.sent}}, s.watch(now)...)
}

// idleStatus is the status of a container that has no worker: as it was
// reported last. What waits for its turn does not run, whatever was.
func (s *state) idleStatus(part pod.Part, waits bool) corev1.ContainerStatus {
	old := s.oldOf(part.Name)
	if old == nil {
		return pod.ContainerStatus(s.pod, part.Container, nil)
	}
	status := *old.DeepCopy()
	if r := status.State.Running; r != nil && waits {
		t := pod.Lost("", r.StartedAt.Time)
		t.ContainerID = status.ContainerID
		no := false
		status.State = corev1.ContainerState{Terminated: t}
		status.Ready, status.Started = false, &no
	}
	return status
}
