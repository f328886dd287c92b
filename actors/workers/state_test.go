package workers

import (
	"net/http"
	"testing"
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

func TestAWorkerIsNotToldOfALookThatBeganBeforeItAsked(t *testing.T) {
	s := newState("n1")
	kept := func(todo []effect) *pod.Keep {
		for _, e := range todo {
			if e, ok := e.(tell); ok {
				if k, ok := e.message.(pod.Keep); ok {
					return &k
				}
			}
		}
		return nil
	}
	s.look()
	s.seen(listed{})
	s.changed(change{Change: feed.Change{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1", ResourceVersion: "1"}}}})
	if kept(s.hello("u1")) == nil {
		t.Fatal("a new pod's worker is told nothing")
	}
	s.look() // and while it is under way, the worker makes a container and is restarted
	if k := kept(s.hello("u1")); k != nil {
		t.Fatalf("told %+v before a look", k)
	}
	todo := s.seen(listed{})
	if k := kept(todo); k != nil {
		t.Fatalf("told of a look that began before: %+v", k)
	}
	if _, again := todo[len(todo)-1].(list); !again {
		t.Fatalf("no look follows: %v", todo)
	}
	k := kept(s.seen(listed{containers: []container.Container{{ID: "u1.a.0", Pod: container.Pod{UID: "u1"}}}}))
	if k == nil || len(k.Found.Containers) != 1 {
		t.Fatalf("after the next look it is told %+v", k)
	}
}

func TestWhatAFullDiskRefusedIsWrittenLater(t *testing.T) {
	s := newState("n1")
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1", ResourceVersion: "1"}}
	s.seen(listed{})
	s.changed(change{Change: feed.Change{Pod: p}})
	s.hello("u1")
	s.reported(pod.Report{UID: "u1", Status: &corev1.PodStatus{Phase: corev1.PodRunning}, Number: 1})
	s.noted(pod.Note{Pod: p, Reason: "Started", At: time.Unix(1, 0)}, "x")
	first := s.batch()
	full := command.Result{Err: &apierrors.StatusError{ErrStatus: metav1.Status{Code: http.StatusInsufficientStorage}}}
	for _, e := range s.answered(first, []command.Result{full, full}, nil) {
		if e, ok := e.(tell); ok {
			t.Errorf("told %+v", e.message)
		}
	}
	if again := s.batch(); len(first) != 2 || len(again) != 2 || again[0].Op != command.Status || again[1].Key != first[1].Key {
		t.Errorf("first %+v, again %+v", first, again)
	}
}

func TestAWorkerIsNotToldOfReportsOfItsPredecessor(t *testing.T) {
	s := newState("n1")
	s.seen(listed{})
	s.changed(change{Change: feed.Change{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1", ResourceVersion: "1"}}}})
	report := func(number uint64) {
		s.reported(pod.Report{UID: "u1", Status: &corev1.PodStatus{Phase: corev1.PodRunning}, Number: number})
	}
	s.hello("u1")
	report(7)
	flying := s.batch()
	report(8)
	s.hello("u1") // it was restarted
	s.seen(listed{})
	for _, e := range s.answered(flying, make([]command.Result, 1), nil) {
		if e, ok := e.(tell); ok {
			t.Errorf("told %+v", e.message)
		}
	}
	if left := s.batch(); len(left) != 0 {
		t.Errorf("written for the one that is no more: %+v", left)
	}
	report(1)
	told := s.answered(s.batch(), make([]command.Result, 1), nil)
	if e, ok := told[len(told)-1].(tell); !ok || e.message != (pod.Written{Number: 1}) {
		t.Errorf("told %+v", told)
	}
}

func TestVolumesStayUntilItIsKnownWhoIsWanted(t *testing.T) {
	s := newState("n1")
	answer := pod.VolumesOf{UIDs: []types.UID{"u1"}} // to the question of an instance that is no more
	if todo := s.volumesOf(answer); len(todo) != 0 {
		t.Errorf("at once: %v", todo)
	}
	s.seen(listed{})
	if todo := s.volumesOf(answer); len(todo) != 1 {
		t.Errorf("after a look: %v", todo)
	}
}

func TestAPodHearsOfWhatItRefersTo(t *testing.T) {
	s := newState("n1")
	refers := func(name, uid string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(uid), ResourceVersion: "1"},
			Spec:       corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}},
		}
	}
	key := api.Key{Resource: api.Secrets, Namespace: "default", Name: "pull"}
	version := func(v string) api.Sources {
		return api.Sources{Secrets: map[string]*corev1.Secret{"pull": {ObjectMeta: metav1.ObjectMeta{ResourceVersion: v}}}}
	}
	s.seen(listed{})
	for _, p := range []*corev1.Pod{refers("b", "u2"), refers("a", "u1")} {
		s.changed(change{feed.Change{Pod: p}, version("1")})
	}
	if all := s.readersOf(key); len(all) != 2 || all[0].UID != "u1" {
		t.Fatalf("they refer to it: %v", all)
	}
	if todo := s.sourced("u1", version("2")); len(todo) != 0 {
		t.Errorf("a worker that has not asked is told %v", todo)
	}
	if k := s.hello("u1")[0].(tell).message.(pod.Keep); !k.Sources.Equal(version("2")) {
		t.Errorf("it begins with %+v", k.Sources)
	}
	if todo := s.sourced("u1", version("2")); len(todo) != 0 {
		t.Errorf("it has not changed: %v", todo)
	}
	todo := s.sourced("u1", version("3"))
	if len(todo) != 1 || !todo[0].(tell).message.(pod.Wish).Sources.Equal(version("3")) {
		t.Errorf("it has changed: %v", todo)
	}
	// Listed anew, the pod is as it was, and the Secret is not.
	if todo := s.bound([]change{{feed.Change{Pod: refers("a", "u1")}, version("4")}}); len(todo) != 1 || !todo[0].(tell).message.(pod.Wish).Sources.Equal(version("4")) {
		t.Errorf("after a list: %v", todo)
	}
	s.changed(change{Change: feed.Change{Pod: refers("a", "u1"), Gone: true}})
	s.ended("u1")
	if s.stopped("u1"); len(s.readersOf(key)) != 0 && s.readersOf(key)[0].UID == "u1" {
		t.Error("it is gone, and is told still")
	}
	s.stopped("u2") // which the list did not name
	if len(s.readers) != 0 {
		t.Errorf("remembered for ever: %v", s.readers)
	}
}
