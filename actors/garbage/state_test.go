package garbage_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/api"
)

func key(name string) api.Key {
	return api.Key{Resource: "configmaps", Namespace: "default", Name: name}
}

func owned(name string, owners ...api.Object) *corev1.ConfigMap {
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	for _, o := range owners {
		c.OwnerReferences = append(c.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o.GetName(), UID: o.GetUID()})
	}
	return c
}

// blocking makes object hold up the foreground deletion of its owners.
func blocking(object *corev1.ConfigMap) *corev1.ConfigMap {
	for i := range object.OwnerReferences {
		object.OwnerReferences[i].BlockOwnerDeletion = ptr.To(true)
	}
	return object
}

// foreground deletes an object as a client does that waits for its dependents.
func foreground(w *controltest.World, key api.Key) {
	controltest.Update(w, key, func(c *corev1.ConfigMap) { c.Finalizers = append(c.Finalizers, metav1.FinalizerDeleteDependents) })
	w.Delete(key)
}

func left(w *controltest.World) []string { return w.Names("configmaps", "default") }

func TestWhatNobodyOwnsAnyMoreGoes(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		a, b := w.Create(owned("a")), w.Create(owned("b"))
		w.Create(owned("grandchild", w.Create(owned("child", a))))
		w.Create(owned("shared", a, b))
		w.Delete(key("a"))
		if got := left(w); !slices.Equal(got, []string{"b", "shared"}) {
			t.Errorf("left: %v", got)
		}
		if refs := w.Get(key("shared")).GetOwnerReferences(); len(refs) != 1 || refs[0].Name != "b" {
			t.Errorf("the gone owner is still named: %v", refs)
		}
		w.Delete(key("b"))
		if got := left(w); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	})
}

func TestAnOwnerThatNeverWasIsGone(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		ghost := owned("ghost")
		ghost.UID = "never"
		w.Create(owned("a", ghost))
		if got := left(w); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		foreign := owned("foreign")
		foreign.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Thing", Name: "x", UID: "y"}}
		w.Create(foreign)
		if got := left(w); len(got) != 1 {
			t.Error("an object whose owner is of an unknown kind was deleted")
		}
	})
}

func TestForegroundWaitsForTheDependents(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		child := blocking(owned("child", w.Create(owned("root"))))
		child.Finalizers = []string{"example.com/hold"}
		w.Create(child)
		foreground(w, key("root"))
		w.Advance(time.Minute)
		if got := left(w); !slices.Equal(got, []string{"child", "root"}) {
			t.Fatalf("left: %v", got)
		}
		controltest.Update(w, key("child"), func(c *corev1.ConfigMap) { c.Finalizers = nil })
		w.Advance(time.Minute)
		if got := left(w); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	})
}

func TestForegroundWaitsOnlyForThoseThatBlock(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		child := owned("child", w.Create(owned("root")))
		child.Finalizers = []string{"example.com/hold"}
		w.Create(child)
		foreground(w, key("root"))
		w.Advance(time.Minute)
		if got := left(w); !slices.Equal(got, []string{"child"}) {
			t.Fatalf("left: %v", got)
		}
		if w.Get(key("child")).GetDeletionTimestamp() == nil {
			t.Error("the child is not being deleted")
		}
	})
}

func TestForegroundGoesDownTheChain(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		child := w.Create(blocking(owned("child", w.Create(owned("root")))))
		grandchild := blocking(owned("grandchild", child))
		grandchild.Finalizers = []string{"example.com/hold"}
		w.Create(grandchild)
		foreground(w, key("root"))
		w.Advance(time.Minute)
		if got := left(w); !slices.Equal(got, []string{"child", "grandchild", "root"}) {
			t.Fatalf("left: %v", got)
		}
		controltest.Update(w, key("grandchild"), func(c *corev1.ConfigMap) { c.Finalizers = nil })
		w.Advance(time.Minute)
		if got := left(w); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	})
}

func TestForegroundWaitsNoLongerForWhoIsReleased(t *testing.T) {
	for name, release := range map[string]func(*corev1.ConfigMap){
		"it names no owner any more":  func(c *corev1.ConfigMap) { c.OwnerReferences = nil },
		"it blocks the owner no more": func(c *corev1.ConfigMap) { c.OwnerReferences[0].BlockOwnerDeletion = nil },
	} {
		controltest.Run(t, func(w *controltest.World) {
			child := blocking(owned("child", w.Create(owned("root"))))
			child.Finalizers = []string{"example.com/hold"}
			w.Create(child)
			foreground(w, key("root"))
			controltest.Update(w, key("child"), release)
			w.Advance(time.Minute)
			if got := left(w); !slices.Equal(got, []string{"child"}) {
				t.Errorf("%s: left: %v", name, got)
			}
		})
	}
}

func TestOwnersInACircle(t *testing.T) {
	circle := func(w *controltest.World) {
		a := w.Create(owned("a"))
		c := w.Create(blocking(owned("c", w.Create(blocking(owned("b", a))))))
		controltest.Update(w, key("a"), func(m *corev1.ConfigMap) { m.OwnerReferences = blocking(owned("a", c)).OwnerReferences })
		w.Advance(time.Minute)
		if got := left(w); len(got) != 3 {
			w.T.Errorf("of those who own each other are left: %v", got)
		}
	}
	controltest.Run(t, func(w *controltest.World) {
		circle(w)
		w.Delete(key("b"))
		w.Advance(time.Minute)
		if got := left(w); len(got) != 0 {
			t.Errorf("deleted in the background, left: %v", got)
		}
	})
	controltest.Run(t, func(w *controltest.World) {
		circle(w)
		foreground(w, key("b"))
		w.Advance(time.Minute)
		if got := left(w); len(got) != 0 {
			t.Errorf("deleted in the foreground, left: %v", got)
		}
	})
	controltest.Run(t, func(w *controltest.World) {
		self := w.Create(owned("self"))
		controltest.Update(w, key("self"), func(m *corev1.ConfigMap) { m.OwnerReferences = blocking(owned("self", self)).OwnerReferences })
		foreground(w, key("self"))
		w.Advance(time.Minute)
		if got := left(w); len(got) != 0 {
			t.Errorf("who owns itself stays: %v", got)
		}
	})
}

func TestAnOwnerInAnotherNamespaceIsNone(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
		owner := owned("owner")
		owner.Namespace = "other"
		made := w.Create(owner)
		child := w.Create(owned("child", made))
		w.Create(owned("kept", made, w.Create(owned("near"))))
		if got := left(w); !slices.Equal(got, []string{"kept", "near"}) {
			t.Errorf("left: %v", got)
		}
		if got := w.Reasons("default", "child"); !slices.Equal(got, []string{"OwnerRefInvalidNamespace×1"}) {
			t.Errorf("told: %v", got)
		}
		want := fmt.Sprintf(`ownerRef [v1/ConfigMap, namespace: default, name: owner, uid: %s] does not exist in namespace "default"`, made.GetUID())
		for _, e := range controltest.List[*corev1.Event](w, "events", "default") {
			if e.InvolvedObject.UID == child.GetUID() && (e.Message != want || e.Type != corev1.EventTypeWarning || e.Source.Component != "garbage-collector-controller") {
				t.Errorf("told %s by %s: %s", e.Type, e.Source.Component, e.Message)
			}
		}
		if refs := w.Get(key("kept")).GetOwnerReferences(); len(refs) != 1 || refs[0].Name != "near" {
			t.Errorf("what has another owner names %v", refs)
		}
	})
}

func TestOrphansStay(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		root := owned("root")
		root.Finalizers = []string{metav1.FinalizerOrphanDependents}
		w.Create(owned("child", w.Create(root)))
		w.Delete(key("root"))
		w.Advance(time.Minute)
		if got := left(w); !slices.Equal(got, []string{"child"}) {
			t.Fatalf("left: %v", got)
		}
		if refs := w.Get(key("child")).GetOwnerReferences(); len(refs) != 0 {
			t.Errorf("the orphan names %v", refs)
		}
	})
}

func TestEventsAreKeptForAnHour(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		event := func(name string) *corev1.Event {
			return &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{Namespace: "default", Name: name},
				InvolvedObject: corev1.ObjectReference{Namespace: "default", Kind: "Pod", Name: "p"},
				Reason:         "Test", Type: "Normal", Count: 1, LastTimestamp: metav1.NewTime(time.Now()),
			}
		}
		w.Create(event("old"))
		w.Create(event("repeated"))
		w.Advance(50 * time.Minute)
		controltest.Update(w, api.Key{Resource: "events", Namespace: "default", Name: "repeated"}, func(e *corev1.Event) { e.Count, e.LastTimestamp = 2, metav1.NewTime(time.Now()) })
		w.Create(event("young"))
		w.Fail("control/controllers/garbage") // what it finds then counts no less
		w.Advance(11 * time.Minute)
		if got := w.Names("events", "default"); !slices.Equal(got, []string{"repeated", "young"}) {
			t.Errorf("after an hour: %v", got)
		}
		w.Advance(2 * time.Hour)
		if got := w.Names("events", "default"); len(got) != 0 {
			t.Errorf("in the end: %v", got)
		}
	})
}

func TestARestartedCollectorFindsWhatItMissed(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		a := w.Create(owned("a"))
		w.Create(owned("child", a))
		w.Fail("control/controllers/garbage")
		w.Delete(key("a"))
		w.Advance(time.Second)
		if got := left(w); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	})
}

func TestNothingInANamespaceOwnsWhatIsInNone(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: "a", UID: w.Create(owned("a")).GetUID()},
		}}})
		w.Advance(time.Minute)
		n := api.Key{Resource: "nodes", Name: "n"}
		for range 3 {
			controltest.Update(w, n, func(n *corev1.Node) { n.Labels = map[string]string{"at": time.Now().String()} })
		}
		if w.Get(n) == nil {
			t.Error("the node was deleted")
		}
		if got := w.Reasons("default", "n"); !slices.Contains(got, "OwnerRefInvalidNamespace×1") {
			t.Errorf("told: %v", got)
		}
	})
}
