package workers

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

const (
	sweepEvery = 30 * time.Second
	again      = 500 * time.Millisecond
	refused    = time.Second // until a commit that was refused as a whole is tried anew
	batchMax   = 500         // changes in a commit
)

// state is what the workers' parent remembers. Its methods read no clock and
// do no I/O; they return what must happen next.
type state struct {
	entries  map[types.UID]*entry
	readers  map[api.Key]map[types.UID]bool // entries by what their pods refer to
	dirty    []types.UID                    // entries with something to write, as they came
	events   events
	listed   bool // the machine has been looked over once
	listing  bool
	relist   bool // and once more after this one
	clearing map[types.UID]bool
	flight   []origin // of the changes of the commit in flight
}

// entry is one pod of this machine.
type entry struct {
	pod     *corev1.Pod
	sources api.Sources // what it refers to
	gone    bool        // the registry has it no more
	worker  string
	fresh   bool // it came after the machine was looked over: nothing can be there of it
	asked   bool // its worker waits for Keep
	stale   bool // the look under way began before that: it may have missed what its worker did in an earlier life
	kept    bool // it has had it
	status  *corev1.PodStatus
	number  uint64 // of status; 0: nothing to write
	life    uint64 // of its worker: each has reports and numbers of its own
	ended   bool   // nothing is left of it here
	remove  bool   // its object is to be deleted
	dirty   bool
	leaving bool // its worker is being stopped
}

// change is one of the feed's about a pod, with what the pod refers to.
type change struct {
	feed.Change
	sources api.Sources
}

// origin is what a change in flight came from.
type origin struct {
	uid    types.UID
	number uint64 // a status
	life   uint64 // of the worker that reported it
	event  *event
}

// effect is something to do.
type effect interface{ effect() }

type (
	spawn struct {
		uid  types.UID
		name string
	}
	tell struct {
		uid     types.UID
		message any
	}
	end  struct{ uid types.UID }
	list struct{}
	tidy struct {
		uid        types.UID
		containers []string
		sandboxes  []string
	}
	unmount struct{ uid types.UID }
	volumes struct{}
	flush   struct{}
	wait    struct {
		delay   time.Duration
		message any
	}
)

func (spawn) effect()   {}
func (tell) effect()    {}
func (end) effect()     {}
func (list) effect()    {}
func (tidy) effect()    {}
func (unmount) effect() {}
func (volumes) effect() {}
func (flush) effect()   {}
func (wait) effect()    {}

func newState(node string) state {
	return state{
		entries: map[types.UID]*entry{}, readers: map[api.Key]map[types.UID]bool{}, clearing: map[types.UID]bool{},
		events: events{node: node, known: map[about]*event{}},
	}
}

// workerName is what a pod's worker is called.
func workerName(p *corev1.Pod) string {
	return p.Namespace + "." + p.Name + "." + string(p.UID)[:min(len(p.UID), 8)]
}

// bound takes all pods of this machine; those that it does not name are gone.
func (s *state) bound(all []change) []effect {
	var todo []effect
	here := map[types.UID]bool{}
	for _, c := range all {
		here[c.Pod.UID] = true
		todo = append(todo, s.changed(c)...)
	}
	for _, uid := range slices.Sorted(maps.Keys(s.entries)) {
		if e := s.entries[uid]; !here[uid] && !e.gone {
			todo = append(todo, s.changed(change{Change: feed.Change{Pod: e.pod, Gone: true}})...)
		}
	}
	return todo
}

// changed takes one pod as the registry has it.
func (s *state) changed(c change) []effect {
	uid := c.Pod.UID
	e := s.entries[uid]
	switch {
	case e == nil && c.Gone:
		return nil
	case e == nil:
		e = &entry{pod: c.Pod, sources: c.sources, worker: workerName(c.Pod), fresh: s.listed}
		s.entries[uid] = e
		s.refers(e)
		return []effect{spawn{uid, e.worker}}
	case e.gone:
		return nil
	case !c.Gone && version(c.Pod) <= version(e.pod):
		return s.sourced(uid, c.sources)
	}
	e.pod, e.gone = c.Pod, c.Gone
	if !c.Gone {
		e.sources = c.sources
		s.refers(e) // also to what an ephemeral container brought
	}
	if !e.kept {
		return nil // Keep will tell
	}
	todo := []effect{tell{uid, e.wish()}}
	if e.ended {
		return append(todo, s.bury(uid)...)
	}
	return todo
}

func (e *entry) wish() pod.Wish { return pod.Wish{Pod: e.pod, Gone: e.gone, Sources: e.sources} }

// refers remembers what e's pod refers to.
func (s *state) refers(e *entry) {
	for _, key := range api.SourcesOf(e.pod) {
		if s.readers[key] == nil {
			s.readers[key] = map[types.UID]bool{}
		}
		s.readers[key][e.pod.UID] = true
	}
}

// forget is the end of an entry.
func (s *state) forget(e *entry) {
	for _, key := range api.SourcesOf(e.pod) {
		if delete(s.readers[key], e.pod.UID); len(s.readers[key]) == 0 {
			delete(s.readers, key)
		}
	}
	delete(s.entries, e.pod.UID)
}

// readersOf are the pods here that refer to a source.
func (s *state) readersOf(key api.Key) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, uid := range slices.Sorted(maps.Keys(s.readers[key])) {
		pods = append(pods, s.entries[uid].pod)
	}
	return pods
}

// sourced takes what a pod refers to, as it now stands.
func (s *state) sourced(uid types.UID, sources api.Sources) []effect {
	e := s.entries[uid]
	if e == nil || e.gone || e.sources.Equal(sources) {
		return nil
	}
	e.sources = sources
	if !e.kept || e.pod.DeletionTimestamp != nil {
		return nil // Keep will tell, or there is nobody left to use it
	}
	return []effect{tell{uid, e.wish()}}
}

func version(p *corev1.Pod) uint64 {
	v, _ := strconv.ParseUint(p.ResourceVersion, 10, 64) // the registry's own number
	return v
}

// hello is a worker's: it has started, or started again.
func (s *state) hello(uid types.UID) []effect {
	e := s.entries[uid]
	if e == nil || e.leaving {
		return nil
	}
	e.kept, e.ended = false, false
	e.life++
	e.status, e.number = nil, 0 // it reports anew
	if e.fresh {
		e.fresh = false
		return s.keep(e, pod.Found{})
	}
	e.asked, e.stale = true, s.listed && s.listing
	if !s.listed {
		return nil // the first look is under way
	}
	return s.look()
}

func (s *state) keep(e *entry, found pod.Found) []effect {
	e.asked, e.kept = false, true
	return []effect{tell{e.pod.UID, pod.Keep{Pod: e.pod, Gone: e.gone, Found: found, Sources: e.sources}}}
}

// look looks the machine over.
func (s *state) look() []effect {
	if s.listing {
		s.relist = true
		return nil
	}
	s.listing = true
	return []effect{list{}}
}

// seen takes what the machine holds: everybody hears of his own, and what
// nobody wants is removed.
func (s *state) seen(m listed) []effect {
	s.listing = false
	if m.err != nil {
		return []effect{wait{again, lookAgain{}}}
	}
	s.listed = true
	found := map[types.UID]*pod.Found{}
	of := func(uid types.UID) *pod.Found {
		if found[uid] == nil {
			found[uid] = &pod.Found{}
		}
		return found[uid]
	}
	for _, c := range m.containers {
		f := of(types.UID(c.Pod.UID))
		f.Containers = append(f.Containers, c)
	}
	strays := map[types.UID][]string{}
	for _, b := range m.sandboxes {
		uid := types.UID(b.Pod.UID)
		if b.ID == string(uid) {
			of(uid).Sandbox = &b
		} else {
			of(uid)
			strays[uid] = append(strays[uid], b.ID)
		}
	}
	for _, uid := range m.files {
		of(uid)
	}
	var todo []effect
	for _, uid := range slices.Sorted(maps.Keys(s.entries)) {
		e, f := s.entries[uid], pod.Found{}
		if found[uid] != nil {
			f = *found[uid]
		}
		switch {
		case e.asked && e.stale:
			e.stale = false // the next look is for it
		case e.asked:
			todo = append(todo, s.keep(e, f)...)
		case e.kept && !e.leaving:
			todo = append(todo, tell{uid, pod.Look{Found: f}})
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(found)) {
		if s.entries[uid] == nil {
			todo = append(todo, s.unwanted(uid, found[uid], strays[uid])...)
		} else if len(strays[uid]) > 0 {
			todo = append(todo, tidy{sandboxes: strays[uid]})
		}
	}
	todo = append(todo, volumes{})
	if s.relist {
		s.relist = false
		todo = append(todo, s.look()...)
	}
	return todo
}

func (s *state) unwanted(uid types.UID, f *pod.Found, strays []string) []effect {
	if s.clearing[uid] {
		return nil
	}
	s.clearing[uid] = true
	c := tidy{uid: uid, sandboxes: strays}
	for _, found := range f.Containers {
		c.containers = append(c.containers, found.ID)
	}
	if f.Sandbox != nil {
		c.sandboxes = append(c.sandboxes, f.Sandbox.ID)
	}
	return []effect{c}
}

// cleared: what nobody wanted is gone; what it had mounted can follow.
func (s *state) cleared(m cleared) []effect {
	delete(s.clearing, m.uid)
	if m.err != nil || m.uid == "" || s.entries[m.uid] != nil {
		return nil // what is left is seen by the next look
	}
	return []effect{unmount{m.uid}}
}

// volumesOf takes who has volumes.
func (s *state) volumesOf(m pod.VolumesOf) []effect {
	if !s.listed {
		return nil // asked in this actor's earlier life; who is wanted is not known yet
	}
	var todo []effect
	for _, uid := range m.UIDs {
		if s.entries[uid] == nil && !s.clearing[uid] {
			todo = append(todo, unmount{uid})
		}
	}
	return todo
}

// happened passes on what the runtime saw.
func (s *state) happened(e container.Event) []effect {
	if e.Kind == container.Gap {
		if !s.listed {
			return nil
		}
		return s.look()
	}
	uid := pod.UIDOf(e.ContainerID)
	if entry := s.entries[uid]; entry == nil || !entry.kept || entry.leaving {
		return nil
	}
	return []effect{tell{uid, e}}
}

// reported takes a pod's status.
func (s *state) reported(r pod.Report) []effect {
	e := s.entries[r.UID]
	if e == nil || !e.kept {
		return nil // or it is of a worker that was restarted since
	}
	e.status, e.number = r.Status, r.Number
	return s.touch(r.UID)
}

func (s *state) touch(uid types.UID) []effect {
	if e := s.entries[uid]; !e.dirty {
		e.dirty = true
		s.dirty = append(s.dirty, uid)
	}
	return []effect{flush{}}
}

// noted takes what people should know.
func (s *state) noted(n pod.Note, suffix string) []effect {
	s.events.add(n, suffix)
	return []effect{flush{}}
}

// ended: nothing is left of a pod here but its object.
func (s *state) ended(uid types.UID) []effect {
	e := s.entries[uid]
	if e == nil {
		return nil
	}
	e.ended = true
	e.remove = true
	return s.bury(uid)
}

// bury deletes the object of a pod that has ended, or its worker once the
// object is deleted. With finalizers the registry keeps it until those are gone.
func (s *state) bury(uid types.UID) []effect {
	e := s.entries[uid]
	switch {
	case e.gone && e.leaving:
		return nil
	case e.gone:
		e.leaving = true
		return []effect{end{uid}}
	case e.pod.DeletionTimestamp != nil && (e.remove || len(e.pod.Finalizers) == 0):
		e.remove = true
		return s.touch(uid)
	}
	return nil
}

// stopped: a worker is no more.
func (s *state) stopped(uid types.UID) []effect {
	e := s.entries[uid]
	if e == nil {
		return nil
	}
	if e.gone {
		s.forget(e)
		return nil
	}
	e.leaving, e.kept, e.fresh = false, false, false
	return []effect{spawn{uid, e.worker}}
}

// batch is what is to be written next.
func (s *state) batch() []command.Change {
	var changes []command.Change
	s.flight = nil
	add := func(c command.Change, o origin) {
		changes = append(changes, c)
		s.flight = append(s.flight, o)
	}
	for len(s.dirty) > 0 && len(changes) < batchMax-1 {
		uid := s.dirty[0]
		s.dirty = s.dirty[1:]
		e := s.entries[uid]
		if e == nil {
			continue
		}
		e.dirty = false
		if e.gone {
			continue
		}
		if e.number > 0 {
			add(command.Change{Op: command.Status, Key: api.KeyOf(e.pod), UID: uid, Object: statusOf(e)}, origin{uid: uid, number: e.number, life: e.life})
			e.status, e.number = nil, 0
		}
		if e.ended && e.remove {
			e.remove = false
			add(command.Change{Op: command.Delete, Key: api.KeyOf(e.pod), UID: uid}, origin{uid: uid})
		}
	}
	for _, v := range s.events.take(batchMax - len(changes)) {
		add(s.events.change(v), origin{event: v})
	}
	return changes
}

func statusOf(e *entry) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: e.pod.Namespace, Name: e.pod.Name, UID: e.pod.UID},
		Status:     *e.status,
	}
}

func eventKey(e *corev1.Event) api.Key { return api.KeyOf(e) }

// answered takes what became of a batch.
func (s *state) answered(changes []command.Change, results []command.Result, err error) []effect {
	flight := s.flight
	s.flight = nil
	if err != nil {
		for i, o := range flight {
			s.restore(changes[i], o)
		}
		return []effect{wait{refused, flushAgain{}}}
	}
	todo := []effect{flush{}}
	retry := false
	for i, o := range flight {
		err := results[i].Err
		switch {
		case noRoom(err):
			s.restore(changes[i], o)
			retry = true
		case o.event != nil:
			s.wrote(o.event, results[i])
		case o.number > 0:
			// A pod that is not there any more, or a status that is refused,
			// cannot be written any better.
			if e := s.entries[o.uid]; e != nil && e.kept && e.life == o.life && !e.leaving {
				todo = append(todo, tell{o.uid, pod.Written{Number: o.number}})
			}
		case err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err):
			s.restore(changes[i], o)
			retry = true
		}
	}
	if retry {
		todo = append(todo[1:], wait{refused, flushAgain{}})
	}
	return todo
}

// noRoom tells whether a change was refused for a disk that is nearly full.
func noRoom(err error) bool {
	s := apierrors.APIStatus(nil)
	return errors.As(err, &s) && s.Status().Code == http.StatusInsufficientStorage
}

// restore takes back what was not written.
func (s *state) restore(c command.Change, o origin) {
	if o.event != nil {
		s.events.touch(o.event)
		return
	}
	e := s.entries[o.uid]
	if e == nil {
		return
	}
	switch {
	case c.Op == command.Delete:
		e.remove = true
	case e.number == 0 && e.life == o.life: // else there is a later one
		e.status, e.number = &c.Object.(*corev1.Pod).Status, o.number
	}
	s.touch(o.uid)
}

// wrote takes what became of an event. One that has expired meanwhile begins
// anew; one that is refused is forgotten.
func (s *state) wrote(v *event, r command.Result) {
	switch {
	case r.Err == nil:
		v.stored = true
		v.meta = metav1.ObjectMeta{UID: r.Object.GetUID(), CreationTimestamp: r.Object.GetCreationTimestamp()}
	case v.stored && apierrors.IsNotFound(r.Err):
		v.stored, v.meta, v.count, v.first = false, metav1.ObjectMeta{}, 1, v.last
		s.events.touch(v)
	}
}

// pending tells whether there is something to write.
func (s *state) pending() bool { return cmp.Or(len(s.dirty), len(s.events.dirty)) > 0 }
