package usage

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/host"
	"github.com/troupe-sh/troupe/runtime/pod"
)

const (
	// resolution is how old an answer may be, and how often is looked while
	// somebody asks.
	resolution = 15 * time.Second
	// interest is how long after a question another one is expected.
	interest = time.Minute
	// idleEvery is how often is looked while nobody asks, so that the first
	// question has something to compare with.
	idleEvery = time.Minute
	// youngest is how long a container has to run before its start counts as
	// the first of two looks: the rate of less says nothing.
	youngest = 10 * time.Second
)

// errNotYet is the answer before the first look.
var errNotYet = errors.New("nothing is measured yet")

// sample is what one look saw.
type sample struct {
	node       host.Usage
	containers []container.Usage
}

// point is what one container, or the machine, had used at one moment.
type point struct {
	started time.Time
	at      time.Time
	cpu     time.Duration
	memory  int64
}

// of names a container across its restarts.
type of struct {
	pod  types.UID
	name string
}

// points are two looks: the last, and before it the one to compare with, which
// a container that has just begun does not have. They are never changed.
type points struct {
	node, nodeBefore point
	last, before     map[of]point
}

// add is what is known after one more look. As in Kubernetes' metrics-server a
// container's start is a look itself, with nothing used, if it is neither too
// young for a rate nor so old that its past would hide its present.
func (p *points) add(s sample) *points {
	next := &points{
		node: point{at: s.node.At, cpu: s.node.CPU, memory: s.node.Memory}, nodeBefore: p.node,
		last: make(map[of]point, len(s.containers)), before: make(map[of]point, len(s.containers)),
	}
	if !next.node.at.After(p.node.at) {
		next.node, next.nodeBefore = p.node, p.nodeBefore
	}
	for _, u := range s.containers {
		key := of{types.UID(u.Pod.UID), u.Name}
		now := point{started: u.StartedAt, at: u.At, cpu: u.CPU, memory: u.Memory}
		next.last[key] = now
		old, known := p.last[key]
		age := now.at.Sub(now.started)
		switch {
		case known && old.started.Equal(now.started) && now.at.After(old.at):
			next.before[key] = old
		case age >= youngest && age < idleEvery:
			next.before[key] = point{started: now.started, at: now.started}
		}
	}
	return next
}

// usage is what the two looks say. A pod of which one container cannot be
// compared is not there.
func (p *points) usage() *pod.Usage {
	u := &pod.Usage{Pods: map[types.UID]pod.PodUsage{}}
	if r, ok := rates(p.node, p.nodeBefore); ok {
		u.Node = r
	}
	partly := map[types.UID]bool{}
	for key, last := range p.last {
		r, ok := rates(last, p.before[key])
		if !ok {
			partly[key.pod] = true
			continue
		}
		one := u.Pods[key.pod]
		one.Containers = append(one.Containers, pod.ContainerUsage{Name: key.name, Rates: r})
		u.Pods[key.pod] = one
	}
	for uid, one := range u.Pods {
		if partly[uid] {
			delete(u.Pods, uid)
			continue
		}
		slices.SortFunc(one.Containers, func(a, b pod.ContainerUsage) int { return cmp.Compare(a.Name, b.Name) })
		earliest := slices.MinFunc(one.Containers, func(a, b pod.ContainerUsage) int { return a.At.Compare(b.At) })
		one.At, one.Window = earliest.At, earliest.Window
		u.Pods[uid] = one
	}
	return u
}

// rates compares two looks; false if there is nothing to compare.
func rates(last, before point) (pod.Rates, bool) {
	window := last.at.Sub(before.at)
	if before.at.IsZero() || window <= 0 || last.cpu < before.cpu {
		return pod.Rates{}, false
	}
	cpu := float64(last.cpu-before.cpu) / window.Seconds()
	return pod.Rates{CPU: int64(cpu), Memory: last.memory, At: last.at, Window: window}, true
}
