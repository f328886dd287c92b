package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/troupe-sh/troupe/sdk"
)

const patience = 30 * time.Second

// next pulls the next event as "ADDED name=value".
func next(t *testing.T, pull func() (sdk.Event[*corev1.ConfigMap], error, bool)) string {
	t.Helper()
	e, err, ok := pull()
	switch {
	case !ok:
		return "end"
	case err != nil:
		return err.Error()
	}
	return fmt.Sprintf("%s %s=%s", e.Type, e.Object.Name, e.Object.Data["a"])
}

func expect(t *testing.T, pull func() (sdk.Event[*corev1.ConfigMap], error, bool), want ...string) {
	t.Helper()
	for _, w := range want {
		if got := next(t, pull); got != w {
			t.Fatalf("saw %q, want %q", got, w)
		}
	}
}

func set(t testing.TB, maps sdk.Objects[*corev1.ConfigMap], name, value string) *corev1.ConfigMap {
	t.Helper()
	return must[*corev1.ConfigMap](t)(maps.Modify(t.Context(), name, func(m *corev1.ConfigMap) error { m.Data["a"] = value; return nil }))
}

func TestWatchTellsOfAllAndThenOfEachChange(t *testing.T) {
	s, c := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	s.Must(configMap("x"))
	s.Must(configMap("y"))
	pull, stop := iter.Pull2(maps.Watch(ctx, metav1.ListOptions{}))
	defer stop()
	expect(t, pull, "ADDED x=1", "ADDED y=1")
	set(t, maps, "x", "2")
	expect(t, pull, "MODIFIED x=2")

	// The agent is away, and meanwhile the journal goes on.
	s.Down()
	s.Up()
	set(t, maps, "y", "3")
	if err := maps.Delete(ctx, "x", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, pull, "MODIFIED y=3", "DELETED x=2")
	cancel()
	if got := next(t, pull); got != context.Canceled.Error() {
		t.Errorf("after the end: %s", got)
	}
	if got := next(t, pull); got != "end" {
		t.Errorf("after the error: %s", got)
	}
}

func TestWatchFromAVersionWithSelectors(t *testing.T) {
	s, c := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	s.Must(configMap("x"))
	at := must[*sdk.List[*corev1.ConfigMap]](t)(maps.List(ctx, metav1.ListOptions{})).Version
	label := func(name, value string) {
		must[*corev1.ConfigMap](t)(maps.Modify(ctx, name, func(m *corev1.ConfigMap) error {
			m.Labels = map[string]string{"l": value}
			return nil
		}))
	}
	s.Must(configMap("y"))
	label("x", "in")
	label("x", "out")
	pull, stop := iter.Pull2(maps.Watch(ctx, metav1.ListOptions{ResourceVersion: at, LabelSelector: "l=in"}))
	defer stop()
	expect(t, pull, "ADDED x=1", "DELETED x=1")
	fields, done := iter.Pull2(maps.Watch(ctx, metav1.ListOptions{ResourceVersion: at, FieldSelector: "metadata.name=y"}))
	defer done()
	expect(t, fields, "ADDED y=1")
}

func TestAWatchFromTooFarBackIsGone(t *testing.T) {
	s, c := start(t)
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	m := s.Must(configMap("x"))
	s.Churn(configMap("y"), 10_100)
	for name, version := range map[string]string{"forgotten": m.GetResourceVersion(), "of another journal": "999999999"} {
		seen := 0
		for e, err := range maps.Watch(t.Context(), metav1.ListOptions{ResourceVersion: version}) {
			if seen++; !errors.Is(err, sdk.ErrGone) {
				t.Fatalf("%s: saw %v, %v", name, e, err)
			}
		}
		if seen != 1 {
			t.Errorf("%s: ended %d times", name, seen)
		}
	}
}

func TestAWatchThatCannotBe(t *testing.T) {
	_, c := start(t)
	seen := 0
	for e, err := range sdk.For[*corev1.Pod](c).Watch(t.Context(), metav1.ListOptions{FieldSelector: "spec.nonsense=1"}) {
		if seen++; !errors.Is(err, sdk.ErrBadRequest) {
			t.Errorf("saw %v, %v", e, err)
		}
	}
	if seen != 1 {
		t.Errorf("ended %d times", seen)
	}
}

// More than the agent may send ahead, taken one by one.
func TestAWatchOfMany(t *testing.T) {
	s, c := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const many = 1500
	s.Churn(configMap("x"), many)
	versions := []string{}
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	for e, err := range maps.Watch(ctx, metav1.ListOptions{ResourceVersion: "1", AllowWatchBookmarks: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == watch.Bookmark {
			continue
		}
		versions = append(versions, e.Object.ResourceVersion)
		if e.Object.Data["turn"] == fmt.Sprint(many) {
			break
		}
	}
	if len(versions) != many+1 || len(slices.Compact(slices.Clone(versions))) != len(versions) {
		t.Errorf("saw %d events", len(versions))
	}
}
