package workers

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/runtime/pod"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func said(uid types.UID, reason string, at time.Time) pod.Note {
	return pod.Note{
		Type: "Normal", Reason: reason, Message: "m", Container: "c", At: at,
		Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: uid}},
	}
}

func TestEventsCountUp(t *testing.T) {
	s := newState("n1")
	add := func(n pod.Note, suffix string) { s.noted(n, suffix) }
	write := func() []command.Change {
		changes := s.batch()
		results := make([]command.Result, len(changes))
		for i, c := range changes {
			stored := c.Object.DeepCopyObject().(*corev1.Event)
			stored.UID = "e1"
			results[i] = command.Result{Object: stored}
		}
		s.answered(changes, results, nil)
		return changes
	}
	add(said("u1", "Created", noon), "1")
	add(said("u1", "Created", noon.Add(time.Second)), "2")
	add(said("u1", "Started", noon.Add(time.Second)), "3")
	add(said("u2", "Created", noon.Add(time.Second)), "4")
	got := write()
	if len(got) != 3 || got[0].Op != command.Create {
		t.Fatalf("%+v", got)
	}
	e := got[0].Object.(*corev1.Event)
	if e.Count != 2 || e.Name != "web.1" || e.InvolvedObject.FieldPath != "spec.containers{c}" || e.InvolvedObject.UID != "u1" ||
		!e.FirstTimestamp.Time.Equal(noon) || !e.LastTimestamp.Time.Equal(noon.Add(time.Second)) || e.Source.Host != "n1" {
		t.Errorf("%+v", e)
	}
	if got := s.batch(); len(got) > 0 {
		t.Errorf("written twice: %+v", got)
	}
	add(said("u1", "Created", noon.Add(30*time.Minute)), "5")
	if got = write(); len(got) != 1 || got[0].Op != command.Update || got[0].Object.(*corev1.Event).Count != 3 || got[0].Object.GetUID() != "e1" || got[0].Key.Name != "web.1" {
		t.Errorf("%+v", got)
	}
	add(said("u1", "Created", noon.Add(100*time.Minute)), "6") // more than an hour later
	if got = write(); len(got) != 1 || got[0].Op != command.Create || got[0].Object.(*corev1.Event).Count != 1 || got[0].Key.Name != "web.6" {
		t.Errorf("%+v", got)
	}

	// One that has expired in the registry begins anew.
	add(said("u1", "Created", noon.Add(101*time.Minute)), "7")
	changes := s.batch()
	s.answered(changes, []command.Result{{Err: apierrors.NewNotFound(schema.GroupResource{Resource: "events"}, "web.6")}}, nil)
	if got = write(); len(got) != 1 || got[0].Op != command.Create || got[0].Object.(*corev1.Event).Count != 1 {
		t.Errorf("%+v", got)
	}

	// One that is refused is forgotten, and a commit that fails is repeated.
	add(said("u1", "Killing", noon.Add(102*time.Minute)), "8")
	changes = s.batch()
	s.answered(changes, nil, apierrors.NewInternalError(fmt.Errorf("no room")))
	if changes = s.batch(); len(changes) != 1 {
		t.Fatalf("%+v", changes)
	}
	s.answered(changes, []command.Result{{Err: apierrors.NewForbidden(schema.GroupResource{Resource: "events"}, "x", nil)}}, nil)
	if got = s.batch(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

func TestEventsAreBounded(t *testing.T) {
	s := newState("n1")
	for i := range 3 * eventsMax {
		s.noted(said(types.UID(fmt.Sprint(i)), "Created", noon), fmt.Sprint(i))
	}
	if len(s.events.known) > eventsMax || len(s.events.dirty) > eventsMax {
		t.Errorf("%d known, %d to write", len(s.events.known), len(s.events.dirty))
	}
}

func TestReportsCoalesce(t *testing.T) {
	s := newState("n1")
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1", ResourceVersion: "1"}}
	s.bound([]change{{Change: feed.Change{Pod: p}}})
	s.entries["u1"].kept = true
	s.reported(pod.Report{UID: "u1", Number: 1, Status: &corev1.PodStatus{Phase: corev1.PodPending}})
	s.reported(pod.Report{UID: "u1", Number: 2, Status: &corev1.PodStatus{Phase: corev1.PodRunning}})
	changes := s.batch()
	if len(changes) != 1 || changes[0].Op != command.Status || changes[0].UID != "u1" || changes[0].Object.(*corev1.Pod).Status.Phase != corev1.PodRunning {
		t.Fatalf("%+v", changes)
	}
	// While that is under way a later one comes, and it fails: the later one counts.
	s.reported(pod.Report{UID: "u1", Number: 3, Status: &corev1.PodStatus{Phase: corev1.PodFailed}})
	s.answered(changes, nil, apierrors.NewInternalError(fmt.Errorf("no room")))
	changes = s.batch()
	if len(changes) != 1 || changes[0].Object.(*corev1.Pod).Status.Phase != corev1.PodFailed {
		t.Fatalf("%+v", changes)
	}
	var told []any
	for _, e := range s.answered(changes, []command.Result{{Object: p}}, nil) {
		if e, ok := e.(tell); ok {
			told = append(told, e.message)
		}
	}
	if len(told) != 1 || told[0] != (pod.Written{Number: 3}) {
		t.Errorf("told %+v", told)
	}
}
