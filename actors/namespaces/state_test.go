package namespaces_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/actors"
	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
)

func key(name string) api.Key { return api.Key{Resource: "namespaces", Name: name} }

func TestEveryClusterHasItsNamespaces(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		want := []string{"default", "kube-node-lease", "kube-public", "kube-system"}
		if got := w.Names("namespaces", ""); !slices.Equal(got, want) {
			t.Errorf("namespaces: %v", got)
		}
	})
}

func TestADeletedNamespaceTakesAllAlong(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
		n := int32(3)
		w.Create(&corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "web"}, Spec: corev1.ReplicationControllerSpec{
			Replicas: &n, Template: &corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
			},
		}})
		w.Create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "held", Finalizers: []string{"example.com/hold"}}})
		w.Delete(key("x"))
		w.Advance(time.Minute)
		ns := w.Get(key("x")).(*corev1.Namespace)
		if ns.Status.Phase != corev1.NamespaceTerminating {
			t.Errorf("phase %s", ns.Status.Phase)
		}
		said := map[corev1.NamespaceConditionType]string{}
		for _, c := range ns.Status.Conditions {
			said[c.Type] = fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
		}
		if d := cmp.Diff(map[corev1.NamespaceConditionType]string{
			"NamespaceDeletionDiscoveryFailure":           "False ResourcesDiscovered: All resources successfully discovered",
			"NamespaceDeletionGroupVersionParsingFailure": "False ParsedGroupVersions: All legacy kube types successfully parsed",
			"NamespaceDeletionContentFailure":             "False ContentDeleted: All content successfully deleted, may be waiting on finalization",
			"NamespaceContentRemaining":                   "True SomeResourcesRemain: Some resources are remaining: configmaps. has 1 resource instances",
			"NamespaceFinalizersRemaining":                "True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
		}, said); d != "" {
			t.Errorf("what it says it waits for: %s", d)
		}
		if pods := w.Names("pods", "x"); len(pods) != 0 {
			t.Errorf("pods left: %v", pods)
		}
		late := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "late"}}
		if answer := w.Commit(command.Change{Op: command.Create, Key: api.KeyOf(late), Object: late}); !apierrors.IsForbidden(answer.Results[0].Err) {
			t.Errorf("a create in a terminating namespace: %v", answer.Results[0].Err)
		}
		controltest.Update(w, api.Key{Resource: "configmaps", Namespace: "x", Name: "held"}, func(c *corev1.ConfigMap) { c.Finalizers = nil })
		w.Advance(time.Minute)
		if w.Get(key("x")) != nil {
			t.Error("the namespace stayed")
		}
		w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
		w.Advance(time.Minute)
		if ns := w.Get(key("x")); ns == nil || ns.GetDeletionTimestamp() != nil {
			t.Error("a namespace of the same name did not live")
		}
	})
}

func TestWritersMeanwhileAreRefusedAndNothingIsLeft(t *testing.T) {
	controltest.Run(t, func(w *controltest.World) {
		w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
		made := 0
		write := func(n int) (futures []*actor.Future) {
			for range n {
				made++
				c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: fmt.Sprint("m-", made), Finalizers: []string{"example.com/hold"}}}
				if made%2 == 0 {
					c.Finalizers = nil
				}
				futures = append(futures, w.System.Root.RequestFuture(w.System.NewLocalPID(actors.RegistryPath),
					&command.Commit{ID: c.Name, Actor: "writer", Changes: []command.Change{{Op: command.Create, Key: api.KeyOf(c), Object: c}}}, time.Minute))
			}
			return futures
		}
		futures := write(800) // more than are deleted at once
		w.Advance(time.Second)
		updated, _ := api.BeginDelete(w.Get(key("x")), nil, time.Now())
		futures = append(futures, write(100)...) // under way while it is deleted
		deleted := w.System.Root.RequestFuture(w.System.NewLocalPID(actors.RegistryPath),
			&command.Commit{ID: "delete", Actor: "test", Changes: []command.Change{{Op: command.Update, Key: key("x"), Object: updated}}}, time.Minute)
		for range 20 {
			futures = append(futures, write(10)...)
			w.Advance(time.Millisecond)
		}
		if answer, err := deleted.Result(); err != nil || answer.(*command.Committed).Results[0].Err != nil {
			t.Fatalf("delete: %v %v", answer, err)
		}
		written, refused := 0, 0
		for _, f := range futures {
			answer, err := f.Result()
			if err != nil {
				t.Fatal(err)
			}
			switch err := answer.(*command.Committed).Results[0].Err; {
			case err == nil:
				written++
			case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
				refused++
			default:
				t.Errorf("a writer meanwhile: %v", err)
			}
		}
		if written < 800 || refused == 0 {
			t.Errorf("%d were written, %d refused", written, refused)
		}
		w.Advance(time.Minute)
		held := w.Names("configmaps", "x")
		if len(held) == 0 || len(held) > (written+1)/2 {
			t.Errorf("%d of %d written are held by their finalizer", len(held), written)
		}
		message := ""
		for _, c := range w.Get(key("x")).(*corev1.Namespace).Status.Conditions {
			if c.Type == corev1.NamespaceFinalizersRemaining {
				message = c.Message
			}
		}
		if want := fmt.Sprintf("Some content in the namespace has finalizers remaining: example.com/hold in %d resource instances", len(held)); message != want {
			t.Errorf("it says %q, want %q", message, want)
		}
		var release []command.Change
		for _, name := range held {
			k := api.Key{Resource: "configmaps", Namespace: "x", Name: name}
			c := w.Get(k).DeepCopyObject().(*corev1.ConfigMap)
			c.Finalizers = nil
			release = append(release, command.Change{Op: command.Update, Key: k, Object: c})
		}
		w.Commit(release...)
		w.Advance(time.Minute)
		if w.Get(key("x")) != nil {
			t.Error("the namespace stayed")
		}
		for _, k := range api.Kinds() {
			if left := w.Names(k.GroupResource().String(), "x"); k.Namespaced && len(left) > 0 {
				t.Errorf("%s left: %v", k.Resource, left)
			}
		}
	})
}

func TestANamespaceIsEmptiedHoweverItIsDeleted(t *testing.T) {
	for _, finalizer := range []string{metav1.FinalizerDeleteDependents, metav1.FinalizerOrphanDependents} {
		controltest.Run(t, func(w *controltest.World) {
			w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x", Finalizers: []string{finalizer}}})
			w.Create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a", Finalizers: []string{"example.com/hold"}}})
			w.Delete(key("x"))
			w.Advance(time.Minute)
			if w.Get(key("x")) == nil {
				t.Fatalf("%s: it went before its content", finalizer)
			}
			controltest.Update(w, api.Key{Resource: "configmaps", Namespace: "x", Name: "a"}, func(c *corev1.ConfigMap) { c.Finalizers = nil })
			w.Advance(time.Minute)
			if w.Get(key("x")) != nil || len(w.Names("configmaps", "x")) != 0 {
				t.Errorf("%s: the namespace or its content stayed", finalizer)
			}
		})
	}
}
