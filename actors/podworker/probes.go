package podworker

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/pod"
)

// prober is an actor that asks one of the containers how it is.
type prober struct {
	name      string
	container *corev1.Container
	kind      pod.ProbeKind
	ready     bool         // it has said hello
	told      *pod.Examine // what it does; nil: it rests
}

// probe begins with the actors that the pod's probes need.
func (s *state) probe() []effect {
	var todo []effect
	for _, part := range pod.Parts(s.pod) {
		c := part.Container
		for _, kind := range pod.ProbeKinds {
			if pod.ProbeOf(c, kind) == nil {
				continue
			}
			p := &prober{name: c.Name + "." + strings.ToLower(string(kind)), container: c, kind: kind}
			s.probes = append(s.probes, p)
			todo = append(todo, spawnProbe{p.name})
		}
	}
	return todo
}

func (s *state) probeOf(name string) *prober {
	i := slices.IndexFunc(s.probes, func(p *prober) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return s.probes[i]
}

// forget is for a container whose worker has started again: what its probes
// have told was told to one that is gone, so that they begin anew.
func (s *state) forget(container string) []effect {
	var todo []effect
	for _, p := range s.probes {
		if p.container.Name == container && p.told != nil {
			p.told = nil
			todo = append(todo, tell{p.name, pod.Rest{}})
		}
	}
	return todo
}

// examine lets each probe ask what it should by now.
func (s *state) examine() []effect {
	var todo []effect
	for _, p := range s.probes {
		if !p.ready {
			continue
		}
		should := s.examination(p)
		switch {
		case should == nil && p.told == nil:
		case should == nil:
			todo = append(todo, tell{p.name, pod.Rest{}})
		case p.told != nil && p.told.Target.ID == should.Target.ID && p.told.Target.Addr == should.Target.Addr:
			continue
		default:
			todo = append(todo, tell{p.name, *should})
		}
		p.told = should
	}
	return todo
}

// examination is what a probe should ask; nil: nothing. A container that has
// not started is asked for nothing else, and one of a pod that goes only
// whether it is ready: others may still send it work.
func (s *state) examination(p *prober) *pod.Examine {
	c := s.children[p.container.Name]
	if s.phase >= finishing && s.phase != stopping || !c.ran || c.report == nil {
		return nil
	}
	r := c.report
	started := r.Status.Started != nil && *r.Status.Started
	going := r.Ending || s.phase == stopping
	if r.Status.State.Running == nil || started == (p.kind == pod.Startup) || going && p.kind != pod.Readiness {
		return nil
	}
	return &pod.Examine{
		Kind: p.kind, Since: r.Since, Adopted: r.Adopted,
		Target: pod.Target{ID: r.ID, Addr: s.old.PodIP, Pod: s.pod, Container: p.container},
	}
}

// health passes on what a probe has come to.
func (s *state) health(name string, m pod.Health) []effect {
	p := s.probeOf(name)
	if p == nil || p.told == nil || p.told.Target.ID != m.ID {
		return nil
	}
	return []effect{tell{p.container.Name, m}}
}
