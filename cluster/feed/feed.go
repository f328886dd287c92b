// Package feed tells a machine what is wanted of it: its Node object, the pods
// bound to it, and the ConfigMaps and Secrets that those refer to.
package feed

import (
	"fmt"
	"slices"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// Feed is the port. Objects that it gives are shared: never change them.
type Feed interface {
	// Pods are those bound to this machine, sorted by key, and the sequence as
	// of which this is so.
	Pods() ([]*corev1.Pod, uint64, error)
	// Watch gives every change of those pods, and of what pods refer to, past
	// from. wake is called as journal.Hub.Subscribe calls it.
	Watch(from uint64, wake func()) Cursor
	// Sources are the ConfigMaps and Secrets that p, a pod of this machine,
	// refers to, as they now stand. A machine reads no others.
	Sources(p *corev1.Pod) (api.Sources, error)
	// WatchNode calls wake when this machine's Node object may have changed, and
	// again only after Node has been called.
	WatchNode(wake func()) NodeWatch
}

// NodeWatch follows the machine's Node object.
type NodeWatch interface {
	// Node is the object as it stands; false if there is none.
	Node() (*corev1.Node, bool, error)
	Close()
}

// Cursor reads changes, each once and in order.
type Cursor interface {
	// Next returns at most max of them; fewer mean that there are no more, and
	// that wake will be called when there are. more says whether to call again.
	// journal.ErrGone: list again.
	Next(max int) (changes []Change, more bool, err error)
	Close()
}

// Change is a pod as it now stands, or stood when it was deleted; or, if Pod is
// nil, the name of a source that is no longer what it was. Not every such name
// is one that a pod of this machine refers to.
type Change struct {
	Pod    *corev1.Pod
	Gone   bool
	Source api.Key
}

// FromHub is the feed of the machine named node, read from the replica that
// the machine itself holds.
func FromHub(hub *journal.Hub, node string) Feed { return &local{hub: hub, node: node} }

type local struct {
	hub  *journal.Hub
	node string
}

const (
	podResource  = "pods"
	nodeResource = "nodes"
)

func (l *local) Pods() ([]*corev1.Pod, uint64, error) {
	s := l.hub.Snapshot()
	records := s.Index(api.OnNode(l.node), podResource)
	pods := make([]*corev1.Pod, 0, len(records))
	for _, r := range records {
		p, err := pod(r)
		if err != nil {
			return nil, 0, err
		}
		pods = append(pods, p)
	}
	return pods, s.Seq(), nil
}

func pod(r *journal.Record) (*corev1.Pod, error) {
	o, err := r.Object()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", r.Key, err)
	}
	p, ok := o.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("read %s: it is a %T", r.Key, o)
	}
	return p, nil
}

func (l *local) Watch(from uint64, wake func()) Cursor {
	return &cursor{Cursor: l.hub.Subscribe(from, wake, podResource, api.ConfigMaps, api.Secrets), term: api.OnNode(l.node)}
}

func (l *local) Sources(p *corev1.Pod) (api.Sources, error) {
	found := api.Sources{ConfigMaps: map[string]*corev1.ConfigMap{}, Secrets: map[string]*corev1.Secret{}}
	s := l.hub.Snapshot()
	for _, key := range api.SourcesOf(p) {
		r, ok := s.Get(key)
		if !ok {
			continue
		}
		o, err := r.Object()
		if err != nil {
			return api.Sources{}, fmt.Errorf("read %s: %w", key, err)
		}
		switch o := o.(type) {
		case *corev1.ConfigMap:
			found.ConfigMaps[key.Name] = o
		case *corev1.Secret:
			found.Secrets[key.Name] = o
		default:
			return api.Sources{}, fmt.Errorf("read %s: it is a %T", key, o)
		}
	}
	return found, nil
}

// WatchNode is woken by changes of any Node; only this machine's is decoded.
func (l *local) WatchNode(wake func()) NodeWatch {
	w := &nodeWatch{local: l}
	w.cursor = l.hub.Subscribe(l.hub.Seq(), func() {
		w.woken.Store(true)
		wake()
	}, nodeResource)
	return w
}

type nodeWatch struct {
	*local
	cursor *journal.Cursor
	woken  atomic.Bool // the cursor may be read, which arms wake again
}

func (w *nodeWatch) Close() { w.cursor.Close() }

func (w *nodeWatch) Node() (*corev1.Node, bool, error) {
	const most = 1000
	for w.woken.Swap(false) { // what changed does not matter: the present object is read below
		changed, _, err := w.cursor.Next(most)
		if err != nil { // too far behind: begin at the present
			return nil, false, fmt.Errorf("follow %s: %w", nodeResource, err)
		}
		if len(changed) == most {
			w.woken.Store(true)
		}
	}
	r, ok := w.hub.Get(api.Key{Resource: nodeResource, Name: w.node})
	if !ok {
		return nil, false, nil
	}
	o, err := r.Object()
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", r.Key, err)
	}
	n, ok := o.(*corev1.Node)
	if !ok {
		return nil, false, fmt.Errorf("read %s: it is a %T", r.Key, o)
	}
	return n, true, nil
}

type cursor struct {
	*journal.Cursor
	term string
}

func (c *cursor) Next(max int) ([]Change, bool, error) {
	changed, _, err := c.Cursor.Next(max)
	if err != nil {
		return nil, false, err
	}
	var out []Change
	for _, ch := range changed {
		r := ch.New
		if r == nil {
			r = ch.Old
		}
		if r.Key.Resource != podResource {
			out = append(out, Change{Source: r.Key})
			continue
		}
		if !slices.Contains(r.Index, c.term) {
			continue
		}
		p, err := pod(r)
		if err != nil {
			return nil, false, err
		}
		out = append(out, Change{Pod: p, Gone: ch.New == nil})
	}
	return out, len(changed) == max, nil
}
