package workers

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	s.changed(feed.Change{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1", ResourceVersion: "1"}}})
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
