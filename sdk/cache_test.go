package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/troupe-sh/troupe/sdk"
)

// ear remembers what a cache told.
type ear struct {
	mu    sync.Mutex
	heard []string
	more  chan struct{}
}

func listen(c *sdk.Cache[*corev1.ConfigMap]) *ear {
	e := &ear{more: make(chan struct{}, 1)}
	c.OnChange(func(change sdk.Change[*corev1.ConfigMap]) {
		e.mu.Lock()
		o := change.Object()
		e.heard = append(e.heard, fmt.Sprintf("%s %s=%s", change.Type, o.Name, o.Data["a"]))
		e.mu.Unlock()
		select {
		case e.more <- struct{}{}:
		default:
		}
	})
	return e
}

// until waits until the ear heard so much, and returns all of it.
func (e *ear) until(t *testing.T, n int) []string {
	t.Helper()
	for deadline := time.After(patience); ; {
		e.mu.Lock()
		heard := slices.Clone(e.heard)
		e.mu.Unlock()
		if len(heard) >= n {
			return heard
		}
		select {
		case <-e.more:
		case <-deadline:
			t.Fatalf("heard only %q", heard)
		}
	}
}

func (e *ear) expect(t *testing.T, want ...string) {
	t.Helper()
	if heard := e.until(t, len(want)); !slices.Equal(heard, want) {
		t.Fatalf("heard %q, want %q", heard, want)
	}
}

// running runs a cache until the test ends, and waits until it is synced.
func running[T sdk.Object](t testing.TB, c *sdk.Cache[T]) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the cache ended: %v", err)
		}
	})
	wait, done := context.WithTimeout(ctx, patience)
	defer done()
	if err := c.WaitSynced(wait); err != nil {
		t.Fatal(err)
	}
}

func TestACacheHoldsWhatThereIs(t *testing.T) {
	s, c := start(t)
	maps := sdk.For[*corev1.ConfigMap](c)
	s.Must(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
	for i, name := range []string{"x", "y", "z"} {
		m := configMap(name)
		m.Labels = map[string]string{"odd": fmt.Sprint(i%2 == 1), "name": name}
		s.Must(m)
	}
	far := configMap("far")
	far.Namespace, far.Labels = "other", map[string]string{"odd": "true"}
	s.Must(far)
	cache := sdk.NewCache(maps, sdk.CacheOptions[*corev1.ConfigMap]{Indexes: map[string]func(*corev1.ConfigMap) []string{
		"value": func(m *corev1.ConfigMap) []string { return []string{m.Data["a"]} },
	}})
	if _, ok := cache.Get("default", "x"); ok || cache.Version() != "" {
		t.Error("it holds something before it runs")
	}
	early := listen(cache)
	running(t, cache)
	early.expect(t, "ADDED x=1", "ADDED y=1", "ADDED z=1", "ADDED far=1")
	if m, ok := cache.Get("default", "x"); !ok || m.Data["a"] != "1" || cache.Err() != nil {
		t.Errorf("x: %v", m)
	}
	set(t, maps.Namespace("default"), "x", "2")
	late := listen(cache)
	early.until(t, 5)
	if heard := late.until(t, 4); !slices.Contains(heard, "ADDED y=1") {
		t.Errorf("who comes late heard %q", heard)
	}
	for what, got := range map[string][]*corev1.ConfigMap{
		"[x y z far]": cache.List("", labels.Everything()),
		"[x y z]":     cache.List("default", labels.Everything()),
		"[y far]":     cache.List("", selector(t, "odd=true")),
		"[y]":         cache.List("default", selector(t, "odd in (true)")),
		"[x z]":       cache.List("default", selector(t, "name,odd!=true")),
		"[]":          cache.List("nowhere", labels.Everything()),
	} {
		names := []string{}
		for _, m := range got {
			names = append(names, m.Name)
		}
		if fmt.Sprint(names) != what {
			t.Errorf("found %v, want %s", names, what)
		}
	}
	if found := cache.ByIndex("value", "2"); len(found) != 1 || found[0].Name != "x" {
		t.Errorf("by value: %v", found)
	}
	if found := cache.ByIndex("value", "1"); len(found) != 3 {
		t.Errorf("by value: %v", found)
	}
	if err := cache.Run(t.Context()); err == nil {
		t.Error("it runs twice")
	}
}

func selector(t *testing.T, s string) labels.Selector {
	t.Helper()
	return must[labels.Selector](t)(labels.Parse(s))
}

func TestACacheOutlivesItsAgentWithoutAGap(t *testing.T) {
	s, c := start(t)
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	s.Must(configMap("x"))
	s.Must(configMap("y"))
	cache := sdk.NewCache(maps, sdk.CacheOptions[*corev1.ConfigMap]{})
	e := listen(cache)
	running(t, cache)
	want := []string{"ADDED x=1", "ADDED y=1"}
	for turn := range 5 {
		s.Down()
		if m, ok := cache.Get("default", "x"); !ok || m == nil {
			t.Error("it forgot while the agent was away")
		}
		s.Up()
		value := fmt.Sprint(turn + 2)
		set(t, maps, "x", value)
		want = append(want, "MODIFIED x="+value)
		e.expect(t, want...)
	}
	s.Must(configMap("z"))
	if err := maps.Delete(t.Context(), "y", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.expect(t, append(want, "ADDED z=1", "DELETED y=1")...)
	if cache.Err() != nil || cache.Version() == "" {
		t.Errorf("at %q: %v", cache.Version(), cache.Err())
	}
}

func TestACacheThatMissedTooMuchComparesWithAllThereIs(t *testing.T) {
	s, c := start(t)
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	for _, name := range []string{"changed", "gone", "other", "same"} {
		s.Must(configMap(name))
	}
	cache := sdk.NewCache(maps, sdk.CacheOptions[*corev1.ConfigMap]{FieldSelector: "metadata.name!=churn"})
	e := listen(cache)
	running(t, cache)
	e.until(t, 4)
	socket := s.Socket
	s.Socket += "2" // the agent is there for others, and not for the cache
	s.Down()
	s.Up()
	beside := sdk.For[*corev1.ConfigMap](dial(t, s.Socket)).Namespace("default")
	set(t, beside, "changed", "2")
	for _, name := range []string{"gone", "other"} {
		if err := beside.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s.Must(configMap("other"))
	s.Must(configMap("new"))
	s.Churn(configMap("churn"), 10_100)
	s.Listen("unix", socket)
	e.expect(t, "ADDED changed=1", "ADDED gone=1", "ADDED other=1", "ADDED same=1",
		"MODIFIED changed=2", "ADDED new=1", "DELETED other=1", "ADDED other=1", "DELETED gone=1")
	set(t, beside, "same", "3")
	if heard := e.until(t, 10); heard[9] != "MODIFIED same=3" {
		t.Errorf("heard %q", heard)
	}
}

func TestACacheOfWhatCannotBeEnds(t *testing.T) {
	_, c := start(t)
	cache := sdk.NewCache(sdk.For[*corev1.Pod](c), sdk.CacheOptions[*corev1.Pod]{FieldSelector: "spec.nonsense=1"})
	if err := cache.Run(t.Context()); !errors.Is(err, sdk.ErrBadRequest) {
		t.Errorf("ran: %v", err)
	}
	if err := cache.WaitSynced(t.Context()); !errors.Is(err, sdk.ErrBadRequest) {
		t.Errorf("synced: %v", err)
	}
}

func TestACacheWaitsForAnAgent(t *testing.T) {
	s, c := start(t)
	s.Down()
	cache := sdk.NewCache(sdk.For[*corev1.ConfigMap](c), sdk.CacheOptions[*corev1.ConfigMap]{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- cache.Run(ctx) }()
	for deadline := time.Now().Add(patience); !errors.Is(cache.Err(), sdk.ErrNoAgent); {
		if time.Now().After(deadline) {
			t.Fatalf("it says %v", cache.Err())
		}
		time.Sleep(time.Millisecond)
	}
	s.Up()
	if err := cache.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
}
