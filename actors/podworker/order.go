package podworker

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// lateGrace is what a sidecar has after its signal when the pod's grace period
// ran out before it was its turn to end.
const lateGrace = 2 * time.Second

// passedBy counts the init containers that are done, or go on beside the rest,
// because something after them has begun in this sandbox. Containers that ended
// may be of an earlier one, but for init containers: those do not outlive theirs.
func passedBy(p *corev1.Pod, found []container.Container) int {
	n := 0
	for _, c := range found {
		i := slices.IndexFunc(p.Spec.InitContainers, func(i corev1.Container) bool { return i.Name == c.Name })
		switch role := pod.PartOf(p, c.Name).Role; {
		case c.ID != pod.ContainerID(p.UID, c.Name, c.Attempt): // somebody else's
		case role != pod.Main:
			n = max(n, i)
		case pod.PartOf(p, c.Name).Container != nil && c.State == container.Running:
			n = len(p.Spec.InitContainers)
		}
	}
	return n
}

// letIn lets begin whose turn it is: init containers one after another in the
// pod's order, then all others.
func (s *state) letIn() []effect {
	if s.phase != preparing && s.phase != active {
		return nil
	}
	var todo []effect
	for _, name := range s.names {
		switch c := s.children[name]; {
		case !c.spawned:
			c.spawned = true
			todo = append(todo, spawn{name})
		case c.ran && s.phase == active && c.entered != s.number && !(c.role == pod.Init && c.passed):
			c.entered = s.number
			todo = append(todo, tell{name, pod.Enter{Number: s.number, Addr: s.sandbox.Addr, Mounts: s.mounts[name]}})
		}
		if s.children[name].blocks() {
			break
		}
	}
	return todo
}

// blocks tells whether nothing after it may begin yet.
func (c *child) blocks() bool { return c.role != pod.Main && !c.passed }

// pass notes that what comes after an init container may begin. That stays so
// in this sandbox, whatever becomes of a sidecar.
func (s *state) pass(c *child) {
	if s.phase != preparing && s.phase != active {
		return
	}
	switch c.role {
	case pod.Init:
		c.passed = c.passed || c.report.Over && !failed(c.report)
	case pod.Sidecar:
		c.passed = c.passed || c.report.Status.Started != nil && *c.report.Status.Started
	}
}

func failed(r *pod.ContainerReport) bool {
	t := r.Status.State.Terminated
	return t == nil || t.ExitCode != 0
}

// begun tells whether the main containers have had their turn in this sandbox.
func (s *state) begun() bool {
	return !slices.ContainsFunc(s.names, func(name string) bool { return s.children[name].blocks() })
}

// spent tells whether the pod has come to its end by itself: an init container
// has failed for good, or all main containers have ended.
func (s *state) spent() bool {
	mains := true
	for _, name := range s.names {
		c := s.children[name]
		over := c.ran && c.report != nil && c.report.Over
		switch {
		case c.role == pod.Init && over && failed(c.report):
			return true
		case c.role == pod.Main && !over:
			mains = false
		}
	}
	return mains
}

// held tells whether something of the pod may run still.
func (s *state) held() bool {
	return s.phase != finishing && s.phase < removing && !s.all(func(r *pod.ContainerReport) bool { return r.Over || r.Stopped })
}

// all tells whether the last report of every child that there is is so.
func (s *state) all(so func(*pod.ContainerReport) bool) bool {
	return !slices.ContainsFunc(s.names, func(name string) bool {
		c := s.children[name]
		return c.spawned && (!c.ran || c.report == nil || !so(c.report))
	})
}

// bid tells those to stop whose turn it is: sidecars once all main containers
// and the sidecars after them have stopped, or when the grace period is over.
func (s *state) bid(now time.Time) []effect {
	var todo []effect
	busy, late := false, !now.Before(s.killAt)
	for _, name := range slices.Backward(s.names) {
		c := s.children[name]
		if c.ran && c.killAt != s.killAt && (c.role != pod.Sidecar || !busy || late) {
			c.killAt = s.killAt
			m := pod.Stop{Grace: max(s.killAt.Sub(now), 0), Signaled: !s.saved.IsZero()}
			if c.role == pod.Sidecar {
				m.Signaled = false // who had it in an agent's earlier life is not known: twice does less harm than never
				if late && busy && !s.gone && s.grace() > 0 {
					m.Grace = lateGrace
				}
			}
			todo = append(todo, tell{name, m})
		}
		busy = busy || c.role != pod.Init && c.spawned && (c.report == nil || !c.report.Stopped)
	}
	return todo
}

// heard tells whether all that were told to stop have had their signal.
func (s *state) heard() bool {
	return !slices.ContainsFunc(s.names, func(name string) bool {
		c := s.children[name]
		return c.spawned && !c.ran || c.killAt.Equal(s.killAt) && (c.report == nil || !c.report.Signaled)
	})
}

// grace is how long the pod's containers have to end.
func (s *state) grace() time.Duration {
	if g := s.pod.DeletionGracePeriodSeconds; g != nil {
		return time.Duration(*g) * time.Second
	}
	return pod.Grace(s.pod)
}

// purged are the containers of what must run again in the next sandbox: left
// there, they would be taken for its own.
func (s *state) purged() (ids []string) {
	for _, name := range s.names {
		c := s.children[name]
		if c.role != pod.Init || !c.spawned {
			continue
		}
		for n := max(c.report.Status.RestartCount-1, 0); n <= c.report.Status.RestartCount+1; n++ {
			ids = append(ids, pod.ContainerID(s.pod.UID, name, uint32(n)))
		}
	}
	return ids
}

// deadline is when the pod has been active for as long as it may be; zero: never.
func (s *state) deadline() time.Time {
	if s.pod.Spec.ActiveDeadlineSeconds == nil || s.old.StartTime == nil {
		return time.Time{}
	}
	return s.old.StartTime.Add(time.Duration(*s.pod.Spec.ActiveDeadlineSeconds) * time.Second)
}

// watch sets a timer to the deadline if it is another than before.
func (s *state) watch(now time.Time) []effect {
	at := s.deadline()
	if at.Equal(s.due) {
		return nil
	}
	s.due = at
	if at.IsZero() {
		return nil
	}
	return []effect{wait{max(at.Sub(now), 0), expired{at}}}
}

// expired ends a pod that has been active for too long.
func (s *state) expired(at, now time.Time) []effect {
	if !at.Equal(s.due) || s.phase == idle || s.phase == finishing || s.phase >= removing || s.deleted() || s.failure != (pod.Failure{}) {
		return nil
	}
	s.failure = pod.DeadlineExceeded
	todo := []effect{note{corev1.EventTypeNormal, s.failure.Reason, s.failure.Message}}
	if s.phase == stopping {
		return todo
	}
	return append(todo, s.wind()...)
}

// wind stops what runs of a pod that ends without being deleted. An agent's
// earlier life may have begun with it.
func (s *state) wind() []effect {
	s.turned(stopping)
	return []effect{loadGrace{}}
}
