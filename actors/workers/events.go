package workers

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/runtime/pod"
)

const (
	eventsMax   = 1024      // remembered; the oldest is forgotten beyond
	eventWindow = time.Hour // the same within it counts up
	component   = "troupe"
)

// about tells equal events.
type about struct {
	uid                              types.UID
	container, kind, reason, message string
}

// event is one that was or will be written.
type event struct {
	about       about
	name        string // of the Event object
	meta        metav1.ObjectMeta
	pod         corev1.ObjectReference
	count       int32
	first, last time.Time
	stored      bool
	dirty       bool
}

// events counts what is said of pods.
type events struct {
	node  string
	known map[about]*event
	order []about // as they came
	dirty []*event
}

// add takes a note; suffix makes the name of a new Event unique.
func (e *events) add(n pod.Note, suffix string) {
	a := about{n.Pod.UID, n.Container, n.Type, n.Reason, n.Message}
	v := e.known[a]
	if v == nil || n.At.Sub(v.last) > eventWindow {
		if v == nil {
			e.order = append(e.order, a)
		}
		v = &event{
			about: a, name: n.Pod.Name + "." + suffix, first: n.At,
			pod: corev1.ObjectReference{
				Kind: "Pod", APIVersion: "v1", Namespace: n.Pod.Namespace, Name: n.Pod.Name,
				UID: n.Pod.UID, ResourceVersion: n.Pod.ResourceVersion,
			},
		}
		if n.Container != "" {
			v.pod.FieldPath = "spec.containers{" + n.Container + "}"
			if pod.PartOf(n.Pod, n.Container).Role != pod.Main {
				v.pod.FieldPath = "spec.initContainers{" + n.Container + "}"
			}
		}
		e.known[a] = v
	}
	v.count++
	v.last = n.At
	e.touch(v)
	for len(e.order) > eventsMax {
		delete(e.known, e.order[0])
		e.order = e.order[1:]
	}
}

// touch has v written. Of more than can be remembered the oldest is not.
func (e *events) touch(v *event) {
	if v.dirty {
		return
	}
	v.dirty = true
	if e.dirty = append(e.dirty, v); len(e.dirty) > eventsMax {
		e.dirty[0].dirty = false
		e.dirty = e.dirty[1:]
	}
}

// take returns at most n of those to write.
func (e *events) take(n int) []*event {
	n = min(n, len(e.dirty))
	taken := e.dirty[:n:n]
	e.dirty = e.dirty[n:]
	for _, v := range taken {
		v.dirty = false
	}
	return taken
}

// change writes v as it now stands.
func (e *events) change(v *event) command.Change {
	o := &corev1.Event{
		TypeMeta:            metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:          v.meta,
		InvolvedObject:      v.pod,
		Reason:              v.about.reason,
		Message:             v.about.message,
		Type:                v.about.kind,
		Source:              corev1.EventSource{Component: component, Host: e.node},
		FirstTimestamp:      pod.Time(v.first),
		LastTimestamp:       pod.Time(v.last),
		Count:               v.count,
		ReportingController: component,
		ReportingInstance:   e.node,
	}
	o.Namespace, o.Name = v.pod.Namespace, v.name
	c := command.Change{Op: command.Create, Key: eventKey(o), Object: o}
	if v.stored {
		c.Op = command.Update
	}
	return c
}
