package sdk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// CacheOptions say what a [Cache] holds.
type CacheOptions[T Object] struct {
	// LabelSelector and FieldSelector choose the objects; "" chooses all.
	LabelSelector, FieldSelector string
	// Indexes are further ways to find objects, beside namespace and labels: each
	// tells the values under which [Cache.ByIndex] finds an object.
	Indexes map[string]func(T) []string
}

// Change is one change of a cached object: Old is what the cache held before,
// New what it holds now; the other one of an object that came or went is nil.
type Change[T Object] struct {
	Type     watch.EventType // Added, Modified, Deleted
	Old, New T
}

// Object is the changed object as it stands, or last stood.
func (c Change[T]) Object() T {
	if c.Type == watch.Deleted {
		return c.Old
	}
	return c.New
}

// Cache is a copy of the objects of a kind in one namespace or in all, kept up
// to date for as long as [Cache.Run] runs. Reads of it ask no agent. What it
// gives out is shared: make a DeepCopy before you write on it.
//
// While the agent is away the cache stands still; when it is back it goes on
// where it was. When it was away for so long that the changes since are not kept
// any more, the cache compares itself with all objects that there are now. Either
// way those who listen hear of each object what changed, once and in order, but
// not of what came and went meanwhile.
type Cache[T Object] struct {
	follower follower[T]
	indexes  map[string]func(T) []string
	synced   chan struct{}
	ended    chan struct{}

	// telling is held while a change is told, and by who begins to listen.
	telling   sync.Mutex
	listeners []func(Change[T])

	mu      sync.RWMutex
	started bool
	err     error
	version string
	objects map[types.NamespacedName]T
	sets    map[set]map[types.NamespacedName]T
}

// set names some of the objects: those of a namespace, with a label, or with an
// index's value. A label's and an index's first part cannot be mistaken for
// another's.
type set struct{ what, value string }

const (
	ofNamespace = "namespace"
	ofLabel     = "label "
	ofIndex     = "index "
)

// NewCache makes a cache of objects, empty until it runs.
func NewCache[T Object](objects Objects[T], o CacheOptions[T]) *Cache[T] {
	return &Cache[T]{
		follower: follower[T]{objects: objects, options: metav1.ListOptions{LabelSelector: o.LabelSelector, FieldSelector: o.FieldSelector}},
		indexes:  o.Indexes,
		synced:   make(chan struct{}),
		ended:    make(chan struct{}),
		objects:  map[types.NamespacedName]T{},
		sets:     map[set]map[types.NamespacedName]T{},
	}
}

// OnChange has hear told of every change from now on, and first of all objects
// that the cache holds, as Added. Changes are told one after the other; while
// hear works the cache stands still, so that what it reads there is what the
// change led to. hear must not call OnChange.
func (c *Cache[T]) OnChange(hear func(Change[T])) {
	c.telling.Lock()
	defer c.telling.Unlock()
	for _, object := range c.List("", labels.Everything()) {
		hear(Change[T]{Type: watch.Added, New: object})
	}
	c.listeners = append(c.listeners, hear)
}

// Synced is closed once the cache has held all objects that there were at one
// moment, and all who listen were told of them.
func (c *Cache[T]) Synced() <-chan struct{} { return c.synced }

// WaitSynced returns nil once the cache is synced.
func (c *Cache[T]) WaitSynced(ctx context.Context) error {
	select {
	case <-c.synced:
		return nil
	case <-c.ended:
		return fmt.Errorf("the cache of %s runs no more: %w", c.follower.objects.kind.Kind, c.Err())
	case <-ctx.Done():
		if err := c.Err(); err != nil {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return context.Cause(ctx)
	}
}

// Err is why the cache stands still; nil while it follows.
func (c *Cache[T]) Err() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.err
}

// Version is the version up to which the cache has seen all changes; "" until it
// is synced.
func (c *Cache[T]) Version() string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.version
}

// Run keeps the cache up to date until ctx ends, and returns its cause; or until
// the agent refuses for a reason that will not pass. It runs once.
func (c *Cache[T]) Run(ctx context.Context) (err error) {
	c.mu.Lock()
	again := c.started
	c.started = true
	c.mu.Unlock()
	if again {
		return fmt.Errorf("the cache of %s was run before: make another", c.follower.objects.kind.Kind)
	}
	defer func() {
		c.stand(err)
		close(c.ended)
	}()
	for {
		err := c.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrGone):
			c.follower.version = "" // compare with all there are
		case !passes(err):
			return err
		}
		c.stand(err)
		if err := c.follower.rest(ctx); err != nil {
			return err
		}
	}
}

// stand notes why the cache stands still.
func (c *Cache[T]) stand(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// follow takes in what one watch has to tell.
func (c *Cache[T]) follow(ctx context.Context) error {
	s, err := c.follower.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	var shown map[types.NamespacedName]bool // of the first objects; nil: they are over
	if c.follower.version == "" {
		shown = map[types.NamespacedName]bool{}
	} else {
		c.stand(nil)
	}
	for {
		e, err := s.next()
		if err != nil {
			return err
		}
		key := keyOf(e.Object)
		switch {
		case shown != nil && isEndOfFirst(e):
			c.forget(shown)
			shown = nil
		case e.Type == watch.Deleted:
			c.remove(key, e.Object)
		case e.Type != watch.Bookmark:
			c.put(key, e.Object)
			if shown != nil {
				shown[key] = true
			}
		}
		c.follower.saw(e)
		if shown == nil {
			c.isAt(c.follower.version)
		}
	}
}

// isAt notes that all changes up to version are seen.
func (c *Cache[T]) isAt(version string) {
	c.mu.Lock()
	first := c.version == ""
	c.version, c.err = version, nil
	c.mu.Unlock()
	if first {
		close(c.synced)
	}
}

// forget removes what is not among those shown.
func (c *Cache[T]) forget(shown map[types.NamespacedName]bool) {
	for _, object := range c.List("", labels.Everything()) {
		if key := keyOf(object); !shown[key] {
			c.remove(key, object)
		}
	}
}

func keyOf[T Object](o T) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// put takes in an object as it stands now. One that the cache holds just so is
// nothing new.
func (c *Cache[T]) put(key types.NamespacedName, object T) {
	old, ok := c.Get(key.Namespace, key.Name)
	switch {
	case !ok:
		c.tell(Change[T]{Type: watch.Added, New: object}, key)
	case old.GetUID() != object.GetUID(): // another one of that name
		c.tell(Change[T]{Type: watch.Deleted, Old: old}, key)
		c.tell(Change[T]{Type: watch.Added, New: object}, key)
	case old.GetResourceVersion() != object.GetResourceVersion():
		c.tell(Change[T]{Type: watch.Modified, Old: old, New: object}, key)
	}
}

// remove takes out an object; last is how it last stood.
func (c *Cache[T]) remove(key types.NamespacedName, last T) {
	if _, ok := c.Get(key.Namespace, key.Name); ok {
		c.tell(Change[T]{Type: watch.Deleted, Old: last}, key)
	}
}

// tell makes a change and tells of it.
func (c *Cache[T]) tell(change Change[T], key types.NamespacedName) {
	c.telling.Lock()
	defer c.telling.Unlock()
	c.mu.Lock()
	if old, ok := c.objects[key]; ok {
		for _, s := range c.setsOf(old) {
			delete(c.sets[s], key)
			if len(c.sets[s]) == 0 {
				delete(c.sets, s)
			}
		}
		delete(c.objects, key)
	}
	if change.Type != watch.Deleted {
		c.objects[key] = change.New
		for _, s := range c.setsOf(change.New) {
			if c.sets[s] == nil {
				c.sets[s] = map[types.NamespacedName]T{}
			}
			c.sets[s][key] = change.New
		}
	}
	c.mu.Unlock()
	for _, hear := range c.listeners {
		hear(change)
	}
}

// setsOf are those that an object belongs to.
func (c *Cache[T]) setsOf(object T) []set {
	sets := []set{{ofNamespace, object.GetNamespace()}}
	for k, v := range object.GetLabels() {
		sets = append(sets, set{ofLabel + k, v})
	}
	for name, values := range c.indexes {
		for _, v := range values(object) {
			sets = append(sets, set{ofIndex + name, v})
		}
	}
	return sets
}

// Get finds an object; those of kinds without namespaces under "".
func (c *Cache[T]) Get(namespace, name string) (object T, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	object, ok = c.objects[types.NamespacedName{Namespace: namespace, Name: name}]
	return object, ok
}

// List finds the objects of a namespace, or of all if namespace is "", that a
// selector matches ([labels.Everything], [labels.Parse]), sorted by namespace
// and name. It looks at no more objects than the namespace has, or one label
// that the selector names.
func (c *Cache[T]) List(namespace string, selector labels.Selector) []T {
	c.mu.RLock()
	defer c.mu.RUnlock()
	candidates := c.objects
	narrow := func(s set) {
		if in := c.sets[s]; len(in) < len(candidates) {
			candidates = in
		}
	}
	if namespace != "" {
		narrow(set{ofNamespace, namespace})
	}
	requirements, _ := selector.Requirements()
	for _, r := range requirements {
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if len(r.Values()) == 1 {
				narrow(set{ofLabel + r.Key(), r.Values().UnsortedList()[0]})
			}
		}
	}
	var found []T
	for _, object := range candidates {
		if (namespace == "" || object.GetNamespace() == namespace) && selector.Matches(labels.Set(object.GetLabels())) {
			found = append(found, object)
		}
	}
	sortByName(found)
	return found
}

// ByIndex finds the objects with a value of one of the cache's indexes, sorted by
// namespace and name.
func (c *Cache[T]) ByIndex(index, value string) []T {
	c.mu.RLock()
	defer c.mu.RUnlock()
	found := slices.Collect(maps.Values(c.sets[set{ofIndex + index, value}]))
	sortByName(found)
	return found
}

func sortByName[T Object](objects []T) {
	slices.SortFunc(objects, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
}
