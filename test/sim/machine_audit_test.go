package sim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// madeBy is the annotation that counts what a command made.
const madeBy = "sim/made-by"

// auditor sees every change of the journal and everything that the runtime
// does, and says when something is not as it must always be.
type auditor struct {
	m *machine

	hub      *journal.Hub
	cursor   *journal.Cursor
	seq      uint64
	objects  map[api.Key]*journal.Record
	pods     map[types.UID]api.Key // of those that are there
	history  map[uint64]api.Key    // what each change was of
	made     map[string]int        // objects, by the command that made them
	refusals map[string]bool
	asked    map[types.UID][]asked // replicas of controllers, as they changed
	forced   map[types.UID]bool    // pods that were deleted without grace

	dirty   bool // the runtime did something
	starts  int
	broken  map[types.UID]time.Time // sandboxes, by the devil
	foreign map[string]bool         // what he made
	bereft  map[types.UID]bool      // pods of which he removed a container
	boxed   map[types.UID]time.Time // when their sandboxes were made, the last time
	sides   map[string]bool         // sidecars that have run there
	wrong   error
	last    string // change that was seen
}

// asked is what a controller was asked for, until it was asked for something else.
type asked struct {
	until    time.Duration // 0: still
	replicas int32
}

func newAuditor(m *machine) *auditor {
	a := &auditor{
		m: m, objects: map[api.Key]*journal.Record{}, pods: map[types.UID]api.Key{}, history: map[uint64]api.Key{},
		made: map[string]int{}, refusals: map[string]bool{}, asked: map[types.UID][]asked{}, forced: map[types.UID]bool{},
		broken: map[types.UID]time.Time{}, foreign: map[string]bool{},
		bereft: map[types.UID]bool{}, boxed: map[types.UID]time.Time{}, sides: map[string]bool{},
	}
	m.runtime.Subscribe(func(container.Event) { a.dirty = true })
	return a
}

// step looks at what has happened since the last one.
func (a *auditor) step() error {
	if a.wrong != nil {
		return a.wrong
	}
	if err := a.read(); err != nil {
		return err
	}
	if a.dirty {
		a.dirty = false
		return a.look()
	}
	return nil
}

func (a *auditor) fail(format string, args ...any) {
	if a.wrong == nil {
		a.wrong = fmt.Errorf(format, args...)
	}
}

func (a *auditor) object(r *journal.Record) api.Object {
	o, err := r.Object()
	if err != nil {
		a.m.w.Failf("read %s: %v", r.Key, err)
	}
	return o
}

func (a *auditor) version(o api.Object) uint64 {
	v, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		a.m.w.Failf("version of %s: %v", api.KeyOf(o), err)
	}
	return v
}

// killed is called when the agent's memory is gone.
func (a *auditor) killed() {
	if err := a.read(); err != nil {
		a.fail("%w", err)
	}
}

// read reads the journal as a watcher that goes on wherever it was, in
// whatever the agent's restart left.
func (a *auditor) read() error {
	hub := a.m.journal.Hub()
	if hub == a.hub && hub.Seq() == a.seq {
		return nil
	}
	if hub != a.hub {
		if hub.Seq() < a.seq {
			return fmt.Errorf("the journal had %d changes and now has %d", a.seq, hub.Seq())
		}
		a.hub, a.cursor = hub, hub.Subscribe(a.seq, func() {})
	}
	const most = 1000
	for {
		changes, upTo, err := a.cursor.Next(most)
		if err != nil {
			return err
		}
		for _, c := range changes {
			if err := a.take(c); err != nil {
				return fmt.Errorf("change %d: %w", c.Seq, err)
			}
		}
		if len(changes) < most {
			if upTo != hub.Seq() {
				return fmt.Errorf("a watcher is at %d, the journal at %d", upTo, hub.Seq())
			}
			a.seq = upTo
			return nil
		}
	}
}

// take checks one change against what was there before.
func (a *auditor) take(c journal.Changed) error {
	r := c.New
	if r == nil {
		r = c.Old
	}
	key := r.Key
	if c.Seq <= a.seq {
		return fmt.Errorf("%s: seen after change %d", key, a.seq)
	}
	a.seq = c.Seq
	was := a.objects[key]
	switch {
	case (was == nil) != (c.Old == nil), was != nil && was.Seq != c.Old.Seq:
		return fmt.Errorf("%s: a watcher missed a change before it", key)
	case c.New != nil && c.New.Seq != c.Seq:
		return fmt.Errorf("%s: the object says that it is of change %d", key, c.New.Seq)
	}
	a.history[c.Seq] = key
	var before, after api.Object
	if c.Old != nil {
		before = a.object(c.Old)
	}
	if c.New == nil {
		delete(a.objects, key)
		a.m.w.Note("%d: %s deleted", c.Seq, key)
	} else {
		a.objects[key] = c.New
		after = a.object(c.New)
		a.m.w.Note("%d: %s %s", c.Seq, key, says(after))
	}
	if key.Resource != "events" && key.Resource != "nodes" {
		a.last = key.String()
	}
	if before != nil && after != nil && before.GetUID() != after.GetUID() {
		return fmt.Errorf("%s changed its UID", key)
	}
	if before == nil {
		id := after.GetAnnotations()[madeBy]
		if id != "" && metav1.GetControllerOf(after) == nil {
			if a.made[id]++; a.made[id] > 1 {
				return fmt.Errorf("%s: command %s made it twice", key, id)
			}
			if a.refusals[id] {
				return fmt.Errorf("%s: made by command %s, which was refused", key, id)
			}
		}
	}
	switch key.Resource {
	case "pods":
		return a.pod(key, before, after)
	case "replicationcontrollers":
		a.controller(before, after)
	}
	return nil
}

// says is what a trace shows of an object.
func says(o api.Object) string {
	switch o := o.(type) {
	case *corev1.Pod:
		s := fmt.Sprintf("%s on %q %s", o.UID, o.Spec.NodeName, o.Status.Phase)
		for _, c := range statuses(o) {
			switch st := c.State; {
			case st.Running != nil:
				s += fmt.Sprintf(" %s#%d running", c.Name, c.RestartCount)
			case st.Terminated != nil:
				s += fmt.Sprintf(" %s#%d ended %d", c.Name, c.RestartCount, st.Terminated.ExitCode)
			case st.Waiting != nil:
				s += fmt.Sprintf(" %s#%d %s", c.Name, c.RestartCount, st.Waiting.Reason)
			}
		}
		if o.DeletionTimestamp != nil {
			s += fmt.Sprintf(" deleted within %d", *o.DeletionGracePeriodSeconds)
		}
		return s
	case *corev1.Event:
		return fmt.Sprintf("%s×%d", o.Reason, o.Count)
	case *corev1.ReplicationController:
		return fmt.Sprintf("%d of %d", o.Status.Replicas, *o.Spec.Replicas)
	}
	return ""
}

// pod checks a change of a pod.
func (a *auditor) pod(key api.Key, old, now api.Object) error {
	before, _ := old.(*corev1.Pod)
	after, _ := now.(*corev1.Pod)
	if after == nil {
		delete(a.pods, before.UID)
		if before.Spec.NodeName == nodeName && !a.forced[before.UID] && a.runs(before.UID) {
			return fmt.Errorf("%s is gone while it runs", key)
		}
		return nil
	}
	a.pods[after.UID] = key
	if terminal(after) && a.runs(after.UID) {
		return fmt.Errorf("%s is %s while it runs", key, after.Status.Phase)
	}
	if err := a.answered(after); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if before == nil {
		return a.bounded(after)
	}
	switch {
	case before.Spec.NodeName != "" && before.Spec.NodeName != after.Spec.NodeName:
		return fmt.Errorf("%s moved from %s to %q", key, before.Spec.NodeName, after.Spec.NodeName)
	case terminal(before) && before.Status.Phase != after.Status.Phase:
		return fmt.Errorf("%s was %s and is %s", key, before.Status.Phase, after.Status.Phase)
	case before.DeletionTimestamp != nil && after.DeletionTimestamp == nil:
		return fmt.Errorf("%s is no longer deleted", key)
	}
	was, is := statuses(before), statuses(after)
	for i, c := range was {
		if len(is) == len(was) && is[i].RestartCount < c.RestartCount {
			return fmt.Errorf("%s: container %s had restarted %d times, now %d", key, c.Name, c.RestartCount, is[i].RestartCount)
		}
	}
	return nil
}

// answered checks that nothing is ready, or has started, that did not say so.
func (a *auditor) answered(p *corev1.Pod) error {
	for _, c := range pod.Parts(p) {
		for _, s := range statuses(p) {
			if s.Name != c.Name {
				continue
			}
			id := strings.TrimPrefix(s.ContainerID, "containerd://")
			if c.ReadinessProbe != nil && s.Ready && !a.m.probes.passed[id+"/ready"] {
				return fmt.Errorf("container %s is ready and was never asked", s.ContainerID)
			}
			if c.StartupProbe != nil && s.Started != nil && *s.Started && !a.m.probes.passed[id+"/startup"] {
				return fmt.Errorf("container %s has started and was never asked", s.ContainerID)
			}
		}
	}
	return nil
}

func statuses(p *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
}

// runs tells whether a container of the pod runs that the devil has not made.
func (a *auditor) runs(uid types.UID) bool {
	return slices.ContainsFunc(a.containers(), func(c container.Container) bool {
		return c.Pod.UID == string(uid) && c.State == container.Running && !a.foreign[c.ID]
	})
}

// inFlight is how old a decision may be when it takes effect.
const inFlight = 2 * time.Minute

func (a *auditor) controller(old, now api.Object) {
	rc, _ := now.(*corev1.ReplicationController)
	if rc == nil {
		return
	}
	if before, _ := old.(*corev1.ReplicationController); before != nil && *before.Spec.Replicas == *rc.Spec.Replicas {
		return
	}
	all := a.asked[rc.UID]
	if len(all) > 0 {
		all[len(all)-1].until = a.m.w.now
	}
	a.asked[rc.UID] = append(all, asked{replicas: *rc.Spec.Replicas})
}

// bounded checks that a controller has not made more pods than it was asked for.
func (a *auditor) bounded(p *corev1.Pod) error {
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		return nil
	}
	most := int32(0)
	for _, q := range a.asked[owner.UID] {
		if q.until == 0 || a.m.w.now-q.until < inFlight {
			most = max(most, q.replicas)
		}
	}
	selector := labels.SelectorFromSet(p.Labels)
	active := int32(0)
	for _, key := range a.pods {
		other := a.object(a.objects[key]).(*corev1.Pod)
		o := metav1.GetControllerOf(other)
		if o != nil && o.UID == owner.UID && !terminal(other) && other.DeletionTimestamp == nil &&
			selector.Matches(labels.Set(other.Labels)) && other.Labels["was"] == "" && other.Annotations[madeBy] == "" {
			active++
		}
	}
	if active > most {
		return fmt.Errorf("controller %s/%s has %d active pods, and was asked for %d at most", p.Namespace, owner.Name, active, most)
	}
	return nil
}

// acknowledged checks that what the user was told is so.
func (a *auditor) acknowledged(c command.Change, o api.Object) {
	if err := a.read(); err != nil {
		a.fail("%w", err)
		return
	}
	if o == nil {
		a.fail("%s was acknowledged without an object", c.Key)
		return
	}
	v := a.version(o)
	if a.history[v] != c.Key {
		a.fail("%s was acknowledged as change %d, which is of %q", c.Key, v, a.history[v])
	}
	if id := o.GetAnnotations()[madeBy]; c.Op == command.Create && a.made[id] != 1 {
		a.fail("%s: command %s was acknowledged and made %d objects", c.Key, id, a.made[id])
	}
}

// refused remembers that a command has made nothing, and never may.
func (a *auditor) refused(id string) {
	a.refusals[id] = true
	if a.made[id] > 0 {
		a.fail("command %s was refused and made something", id)
	}
}

func (a *auditor) containers() []container.Container { return a.m.runtime.All() }
func (a *auditor) sandboxes() []container.Sandbox    { return a.m.runtime.AllSandboxes() }

// look checks what the runtime holds.
func (a *auditor) look() error {
	running := map[string]string{}
	for _, c := range a.containers() {
		if c.State != container.Running || a.foreign[c.ID] {
			continue
		}
		who := c.Pod.UID + " " + c.Name
		if other := running[who]; other != "" {
			return fmt.Errorf("two containers of one run: %s and %s", other, c.ID)
		}
		running[who] = c.ID
	}
	boxes, addrs := map[string]string{}, map[string]string{}
	for _, s := range a.sandboxes() {
		if other := addrs[s.Addr.String()]; s.Addr.IsValid() && other != "" {
			return fmt.Errorf("sandboxes %s and %s have the address %s", other, s.ID, s.Addr)
		}
		addrs[s.Addr.String()] = s.ID
		if a.foreign[s.ID] {
			continue
		}
		if other := boxes[s.Pod.UID]; other != "" {
			return fmt.Errorf("two sandboxes of one pod: %s and %s", other, s.ID)
		}
		boxes[s.Pod.UID] = s.ID
	}
	return nil
}

// started counts a container that the agent starts, and checks that it is its turn.
func (a *auditor) started(c container.Container) {
	a.starts++
	a.dirty = true
	uid := types.UID(c.Pod.UID)
	p := a.wanted(uid)
	if p == nil {
		return
	}
	for _, part := range pod.Parts(p) {
		if part.Name == c.Name {
			if part.Role == pod.Init && a.done(uid, c.Name) {
				a.fail("%s runs again, and has done its work", c.ID)
			}
			a.sides[string(uid)+" "+c.Name] = part.Role == pod.Sidecar
			return
		}
		if part.Role == pod.Init && !a.done(uid, part.Name) && !a.bereft[uid] || part.Role == pod.Sidecar && !a.sides[string(uid)+" "+part.Name] {
			a.fail("%s starts before %s is done", c.ID, part.Name)
		}
	}
}

// done tells whether an init container has done its work in the sandbox that is there.
func (a *auditor) done(uid types.UID, name string) bool {
	return slices.ContainsFunc(a.containers(), func(c container.Container) bool {
		return c.Pod.UID == string(uid) && c.Name == name && c.State == container.Exited && c.ExitKnown && c.ExitCode == 0 && !c.StartedAt.Before(a.boxed[uid])
	})
}

// wanted is the pod of a UID; nil if there is none.
func (a *auditor) wanted(uid types.UID) *corev1.Pod {
	if err := a.read(); err != nil {
		a.fail("%w", err)
		return nil
	}
	key, ok := a.pods[uid]
	if !ok {
		return nil
	}
	return a.object(a.objects[key]).(*corev1.Pod)
}

// remakes notes that a sandbox is made: what was done in another is undone.
func (a *auditor) remakes(id string) {
	a.dirty = true
	for _, s := range a.sandboxes() {
		if s.ID == id && s.Ready {
			return
		}
	}
	a.boxed[types.UID(id)] = a.m.w.Now()
	for who := range a.sides {
		if strings.HasPrefix(who, id+" ") {
			delete(a.sides, who)
		}
	}
}

// broke notes that the devil spoiled a pod's sandbox: what runs in it may be ended.
func (a *auditor) broke(uid types.UID) { a.broken[uid] = a.m.w.Now() }

// ends checks that the agent has a reason to end what runs.
func (a *auditor) ends(how string, which func(container.Container) bool) {
	for _, c := range a.containers() {
		if c.State == container.Running && which(c) {
			if err := a.mayEnd(c); err != nil {
				a.fail("%s: %w", how, err)
			}
		}
	}
}

// warned checks that a container that is asked to end had its hook before.
func (a *auditor) warned(id string) {
	uid, name := pod.UIDOf(id), strings.Split(id, ".")[1]
	key, ok := a.pods[uid]
	if !ok {
		return
	}
	for _, c := range a.object(a.objects[key]).(*corev1.Pod).Spec.Containers {
		if l := c.Lifecycle; c.Name == name && l != nil && l.PreStop != nil && !a.m.probes.hooked[id+"/before"] {
			a.fail("%s of %s gets its signal before its hook", id, key)
		}
	}
}

func (a *auditor) mayEnd(c container.Container) error {
	uid := types.UID(c.Pod.UID)
	if a.foreign[c.ID] || a.foreign[c.Sandbox] {
		return nil
	}
	if at, broken := a.broken[uid]; broken && !c.StartedAt.After(at) {
		return nil
	}
	p := a.wanted(uid)
	if p == nil || p.DeletionTimestamp != nil || a.expired(p) {
		return nil
	}
	if a.m.probes.unwell[c.ID] || pod.PartOf(p, c.Name).Role == pod.Sidecar && (a.bereft[uid] || a.spent(p)) {
		return nil
	}
	return fmt.Errorf("container %s of %s runs and is wanted", c.ID, api.KeyOf(p))
}

// expired tells whether a pod has been active for as long as it may be.
func (a *auditor) expired(p *corev1.Pod) bool {
	d, since := p.Spec.ActiveDeadlineSeconds, p.Status.StartTime
	return d != nil && since != nil && a.m.w.Now().Sub(since.Time) >= time.Duration(*d)*time.Second
}

// spent tells whether all that a pod is for has ended, or never can begin.
func (a *auditor) spent(p *corev1.Pod) bool {
	last := map[string]container.Container{}
	for _, c := range a.containers() {
		if c.Pod.UID == string(p.UID) && !a.foreign[c.ID] && (last[c.Name].ID == "" || c.Attempt > last[c.Name].Attempt) {
			last[c.Name] = c
		}
	}
	for _, part := range pod.Parts(p) {
		c := last[part.Name]
		over := c.State != container.Running && c.ID != "" && !pod.Restarts(p, part.Container, code(c))
		switch {
		case part.Role == pod.Init && over && code(c) != 0:
			return true
		case part.Role == pod.Main && !over:
			return false
		}
	}
	return true
}

// code is what a container's end counts as.
func code(c container.Container) int32 {
	switch {
	case c.State == container.Created:
		return pod.ExitUnstarted
	case !c.ExitKnown:
		return pod.ExitUnknown
	}
	return int32(c.ExitCode)
}

// busy tells whether anything but machines and events has changed since seq.
func (a *auditor) busy(seq uint64) bool {
	for s := seq + 1; s <= a.seq; s++ {
		if r := a.history[s].Resource; r != "events" && r != "nodes" && r != "" {
			a.last = a.history[s].String()
			return true
		}
	}
	return false
}

// unsettled says what does not fit together yet.
func (a *auditor) unsettled() error {
	for key, r := range a.objects {
		if now, ok := a.m.journal.Hub().Get(key); !ok || now.Seq != r.Seq {
			return fmt.Errorf("%s is not what a watcher saw", key)
		}
	}
	cidrs := map[string]string{}
	boxes := map[types.UID]container.Sandbox{}
	for _, s := range a.sandboxes() {
		if a.foreign[s.ID] {
			return fmt.Errorf("sandbox %s is there, which nobody wants", s.ID)
		}
		boxes[types.UID(s.Pod.UID)] = s
	}
	byPod := map[types.UID][]container.Container{}
	for _, c := range a.containers() {
		if a.foreign[c.ID] {
			return fmt.Errorf("container %s is there, which nobody wants", c.ID)
		}
		byPod[types.UID(c.Pod.UID)] = append(byPod[types.UID(c.Pod.UID)], c)
	}
	for _, key := range slices.SortedFunc(maps.Keys(a.objects), api.Key.Compare) {
		switch o := a.object(a.objects[key]).(type) {
		case *corev1.Node:
			if other := cidrs[o.Spec.PodCIDR]; other != "" || o.Spec.PodCIDR == "" {
				return fmt.Errorf("nodes %s and %s have the pod CIDR %q", other, o.Name, o.Spec.PodCIDR)
			}
			cidrs[o.Spec.PodCIDR] = o.Name
			if o.Name == nodeName && len(o.Spec.Taints) > 0 {
				return fmt.Errorf("the machine has the taints %v", o.Spec.Taints)
			}
		case *corev1.Pod:
			box, there := boxes[o.UID]
			if err := a.podUnsettled(o, box, there, byPod[o.UID]); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		default:
			if o.GetDeletionTimestamp() != nil {
				return fmt.Errorf("%s is still being deleted: %v", key, o.GetFinalizers())
			}
		}
	}
	return a.leftovers(boxes, byPod)
}

// leftovers are of pods that are not there any more.
func (a *auditor) leftovers(boxes map[types.UID]container.Sandbox, byPod map[types.UID][]container.Container) error {
	for what, uids := range map[string][]types.UID{
		"sandbox": slices.Collect(maps.Keys(boxes)), "container": slices.Collect(maps.Keys(byPod)),
		"volume": slices.Collect(maps.Keys(a.m.volumes.have)), "file": a.m.disk.pods(),
	} {
		for _, uid := range uids {
			if _, ok := a.pods[uid]; !ok {
				return fmt.Errorf("a %s of %s is left, whom nobody wants", what, uid)
			}
		}
	}
	return nil
}

func (a *auditor) podUnsettled(p *corev1.Pod, box container.Sandbox, boxed bool, all []container.Container) error {
	switch {
	case p.DeletionTimestamp != nil:
		return fmt.Errorf("it is still being deleted")
	case p.Spec.NodeName == "":
		return fmt.Errorf("it is not placed")
	case terminal(p):
		if boxed || len(all) > 0 || a.m.volumes.have[p.UID] != nil {
			return fmt.Errorf("it has ended, and %d containers are left", len(all))
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReadyToStartContainers && c.Status == corev1.ConditionTrue {
				return fmt.Errorf("it has ended, and its status still has a sandbox")
			}
		}
		return nil
	case !boxed || !box.Ready:
		return fmt.Errorf("its sandbox is not there")
	case p.Status.PodIP != box.Addr.String():
		return fmt.Errorf("its address is %s, its sandbox's %s", p.Status.PodIP, box.Addr)
	}
	if err := a.configuration(p, all); err != nil {
		return err
	}
	for _, st := range statuses(p) {
		if !settledContainer(p, st, all) {
			return fmt.Errorf("container %s says %+v, the runtime %+v", st.Name, st, all)
		}
	}
	return nil
}

// configuration checks that a pod's files are as what they are made of now is,
// and that what runs has the environment that it was to have.
func (a *auditor) configuration(p *corev1.Pod, all []container.Container) error {
	files := a.m.volumes.have[p.UID]
	for _, vol := range p.Spec.Volumes {
		want, path := p.Labels["app"], "app"
		if vol.ConfigMap != nil {
			m, _ := a.m.user.get(api.Key{Resource: api.ConfigMaps, Namespace: p.Namespace, Name: vol.ConfigMap.Name}).(*corev1.ConfigMap)
			if m == nil {
				return fmt.Errorf("its ConfigMap %s is not there", vol.ConfigMap.Name)
			}
			want, path = m.Data["v"], "v"
		}
		if got := files[vol.Name+"/"+path]; got != want {
			return fmt.Errorf("the file %s of its volume %s says %q, want %q", path, vol.Name, got, want)
		}
	}
	for _, c := range all {
		spec, _ := a.m.runtime.Spec(c.ID)
		wants := slices.ContainsFunc(p.Spec.Containers, func(w corev1.Container) bool { return w.Name == c.Name && len(w.Env) > 0 })
		if has := slices.ContainsFunc(spec.Env, func(v string) bool { return strings.HasPrefix(v, "V=") && v != "V=" }); has != wants {
			return fmt.Errorf("container %s has the environment %q", c.ID, spec.Env)
		}
	}
	return nil
}

// settledContainer tells whether a status is what the runtime says, and what
// has to run does.
func settledContainer(p *corev1.Pod, st corev1.ContainerStatus, all []container.Container) bool {
	id := pod.ContainerID(p.UID, st.Name, uint32(st.RestartCount))
	running := slices.ContainsFunc(all, func(c container.Container) bool { return c.ID == id && c.State == container.Running })
	part := pod.PartOf(p, st.Name)
	ready := running
	if part.Role == pod.Init {
		ready = st.State.Terminated != nil && st.State.Terminated.ExitCode == 0
	}
	if running != (st.State.Running != nil) || ready != st.Ready {
		return false
	}
	if part.Role == pod.Main && runs(part.Image) && !running && !hopeless(p) &&
		(p.Spec.RestartPolicy == corev1.RestartPolicyAlways || st.State.Terminated == nil) {
		return false
	}
	return !running || st.ContainerID == pod.FullID(id)
}
