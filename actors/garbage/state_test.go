package garbage_test

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
		root := owned("root")
		root.Finalizers = []string{metav1.FinalizerDeleteDependents}
		made := w.Create(root)
		child := owned("child", made)
		child.Finalizers = []string{"example.com/hold"}
		w.Create(child)
		w.Delete(key("root"))
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
		if w.Get(api.Key{Resource: "nodes", Name: "n"}) == nil {
			t.Error("the node was deleted")
		}
	})
}
