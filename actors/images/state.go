package images

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

const (
	pullsMax  = 4                      // images at once
	stepEvery = 250 * time.Millisecond // between two words on a pull's progress
)

// stage is where someone who asked stands.
type stage uint8

const (
	looking stage = iota // the runtime is being asked what is here
	pulling              // waits for a pull
	told                 // that it is not to be had, and hears of it should it come all the same
)

// asker is one who wants an image.
type asker struct {
	who     *actor.PID
	name    string
	policy  corev1.PullPolicy
	insists bool             // that it is pulled now, and wants to hear how far that is
	auths   []container.Auth // to be tried in turn
	lacking []string         // secrets that there are none of
	wrong   error            // about secrets
	stage   stage
}

// key tells whether two askers may share a pull.
func (a *asker) key() string {
	var all []string
	for _, auth := range a.auths {
		all = append(all, auth.Fingerprint())
	}
	return strings.Join(all, ",")
}

// image is a name that somebody asked for.
type image struct {
	asking bool // the runtime is being asked
	again  bool // and has to be asked once more: an image came meanwhile
	askers map[string]*asker
	pulls  []*pull // by what they may show; one runs at a time, the others then find most of it here
}

// pull is one that runs or waits for its turn.
type pull struct {
	number   uint64
	name     string
	key      string
	auths    []container.Auth
	running  bool
	begun    time.Time
	progress *container.Progress
}

// state is what the actor knows: who waits for what. What is here the runtime
// knows.
type state struct {
	images  map[string]*image
	askers  map[string]*asker // each wants one image
	queue   []*pull           // those not running, in their order
	running int
	last    uint64 // number of a pull
	ticking bool

	gc        GC
	used      map[string]time.Time // when an image was last seen in use, by ID
	surveying bool
	anew      bool // the machine has to be looked at once more: an image came meanwhile
}

func newState(gc GC) state {
	return state{images: map[string]*image{}, askers: map[string]*asker{}, gc: gc.orDefault(), used: map[string]time.Time{}}
}

// effect is something to do.
type effect interface{ effect() }

type (
	look  struct{ name string } // ask the runtime
	start struct{ pull *pull }
	stop  struct{ number uint64 }
	tell  struct {
		who     *actor.PID
		message any
	}
	watch   struct{ who *actor.PID }
	unwatch struct{ who *actor.PID }
	again   struct{ after time.Duration } // to say how far pulls are
	inspect struct{}                      // look at the machine, whether images have to go
	remove  struct{ collection }
)

func (look) effect()    {}
func (start) effect()   {}
func (stop) effect()    {}
func (tell) effect()    {}
func (watch) effect()   {}
func (unwatch) effect() {}
func (again) effect()   {}
func (inspect) effect() {}
func (remove) effect()  {}

// find takes a wish. It replaces an earlier one of the same asker.
func (s *state) find(a *asker) []effect {
	var todo []effect
	if old := s.askers[a.who.String()]; old != nil {
		if old.stage == pulling && old.name == a.name && old.insists == a.insists && old.key() == a.key() {
			return nil // asked again because a pull takes its time
		}
		todo = s.leave(old)
	}
	n := s.images[a.name]
	if n == nil {
		n = &image{askers: map[string]*asker{}}
		s.images[a.name] = n
	}
	n.askers[a.who.String()], s.askers[a.who.String()] = a, a
	return append(append(todo, watch{a.who}), s.look(a.name)...)
}

// look asks the runtime, once for all who wait.
func (s *state) look(name string) []effect {
	n := s.images[name]
	if n.asking {
		n.again = true
		return nil
	}
	n.asking = true
	return []effect{look{name}}
}

// loaded hears that images have come by an import.
func (s *state) loaded() []effect {
	var todo []effect
	for _, name := range slices.Sorted(maps.Keys(s.images)) {
		todo = append(todo, s.look(name)...)
	}
	return append(todo, s.inspect()...)
}

// inspect has the machine looked at, whether images have to go.
func (s *state) inspect() []effect {
	if s.surveying {
		s.anew = true
		return nil
	}
	s.surveying = true
	return []effect{inspect{}}
}

// surveyed takes what there is.
func (s *state) surveyed(v survey, now time.Time) []effect {
	if v.err == nil {
		if c := s.choose(v, now); len(c.ids) > 0 || c.lacks > 0 {
			return []effect{remove{c}}
		}
	}
	return s.collected()
}

// collected ends a look at the machine.
func (s *state) collected() []effect {
	s.surveying = false
	if s.anew {
		s.anew = false
		return s.inspect()
	}
	return nil
}

// looked takes what the runtime has of a name.
func (s *state) looked(m looked, now time.Time) []effect {
	n := s.images[m.name]
	if n == nil {
		return nil
	}
	n.asking = false
	var todo []effect
	for _, key := range slices.Sorted(maps.Keys(n.askers)) {
		switch a := n.askers[key]; {
		case a.stage == looking:
			todo = append(todo, s.judge(a, m, now)...)
		case a.stage == told && m.err == nil && usable(a, m.image):
			todo = append(todo, s.answer(a, pod.ImageFound{Name: m.name, Image: m.image}, now)...)
		}
	}
	if n.again {
		n.again = false
		if len(n.askers) > 0 {
			todo = append(todo, s.look(m.name)...)
		}
	}
	s.tidy(m.name)
	return append(todo, s.begin(now)...)
}

// usable tells whether what is here will do. What was imported always does,
// whatever the policy: no registry is asked about what none has brought. What
// a registry gave to one is for those who show the same credentials.
func usable(a *asker, i container.Image) bool {
	full, err := container.ImageName(a.name)
	by, pulled := i.Pulled[full]
	switch {
	case a.insists:
		return false
	case err != nil || !pulled:
		return true
	case a.policy == corev1.PullAlways:
		return false
	}
	return slices.Contains(by, container.Anyone) || slices.ContainsFunc(a.auths, func(auth container.Auth) bool {
		return slices.Contains(by, auth.Fingerprint())
	})
}

// judge decides for one who asked, now that it is known what is here.
func (s *state) judge(a *asker, m looked, now time.Time) []effect {
	switch {
	case !a.insists && m.err == nil && usable(a, m.image):
		return s.answer(a, pod.ImageFound{Name: a.name, Image: m.image}, now)
	case m.err != nil && !errors.Is(m.err, container.ErrNotFound):
		return s.answer(a, pod.ImageFound{Name: a.name, Err: m.err}, now)
	case a.policy == corev1.PullNever:
		a.stage = told
		return []effect{tell{a.who, pod.ImageFound{Name: a.name, Err: container.ErrNotFound}}}
	case a.wrong != nil:
		a.stage = told
		return []effect{
			tell{a.who, pod.ImagePulling{Name: a.name, Lacking: a.lacking}},
			tell{a.who, pod.ImageFound{Name: a.name, Asked: true, Err: a.wrong}},
		}
	}
	a.stage = pulling
	todo := []effect{tell{a.who, pod.ImagePulling{Name: a.name, Lacking: a.lacking}}}
	if a.insists && !s.ticking {
		s.ticking = true
		todo = append(todo, again{stepEvery})
	}
	n := s.images[a.name]
	if !slices.ContainsFunc(n.pulls, func(p *pull) bool { return p.key == a.key() }) {
		s.last++
		p := &pull{number: s.last, name: a.name, key: a.key(), auths: a.auths, progress: &container.Progress{}}
		n.pulls, s.queue = append(n.pulls, p), append(s.queue, p)
	}
	return todo
}

// begin starts the pulls whose turn it is.
func (s *state) begin(now time.Time) []effect {
	var todo []effect
	s.queue = slices.DeleteFunc(s.queue, func(p *pull) bool {
		busy := slices.ContainsFunc(s.images[p.name].pulls, func(o *pull) bool { return o.running })
		if busy || s.running == pullsMax {
			return false
		}
		p.running, p.begun = true, now
		s.running++
		todo = append(todo, start{p})
		return true
	})
	return todo
}

// pulled takes how a pull ended.
func (s *state) pulled(m pulled, now time.Time) []effect {
	n := s.images[m.name]
	if n == nil {
		return nil
	}
	i := slices.IndexFunc(n.pulls, func(p *pull) bool { return p.number == m.number && p.running })
	if i < 0 {
		return nil // nobody wanted it any more
	}
	p := n.pulls[i]
	n.pulls = slices.Delete(n.pulls, i, i+1)
	s.running--
	reply := pod.ImageFound{Name: m.name, Image: m.image, Asked: true, Took: now.Sub(p.begun), Err: m.err}
	var todo []effect
	waits := false
	for _, key := range slices.Sorted(maps.Keys(n.askers)) {
		switch a := n.askers[key]; {
		case a.stage == told:
			waits = true
		case a.stage != pulling || a.key() != p.key:
		case m.err == nil || a.insists:
			todo = append(todo, s.answer(a, reply, now)...)
		default:
			a.stage = told
			todo = append(todo, tell{a.who, reply})
		}
	}
	if m.err == nil && waits {
		todo = append(todo, s.look(m.name)...)
	}
	s.tidy(m.name)
	if m.err == nil {
		todo = append(todo, s.inspect()...)
	}
	return append(todo, s.begin(now)...)
}

// answer is the last that an asker hears.
func (s *state) answer(a *asker, reply pod.ImageFound, now time.Time) []effect {
	if reply.Err == nil {
		s.used[reply.Image.ID] = now // by the container that is made of it now
	}
	a.stage = told // it holds no pull
	return append([]effect{tell{a.who, reply}}, s.leave(a)...)
}

// leave forgets an asker, and ends a pull that was for it alone.
func (s *state) leave(a *asker) []effect {
	n, key := s.images[a.name], a.who.String()
	delete(n.askers, key)
	delete(s.askers, key)
	todo := []effect{unwatch{a.who}}
	if a.stage != pulling || slices.ContainsFunc(slices.Collect(maps.Values(n.askers)), func(o *asker) bool {
		return o.stage == pulling && o.key() == a.key()
	}) {
		return todo
	}
	n.pulls = slices.DeleteFunc(n.pulls, func(p *pull) bool {
		if p.key != a.key() {
			return false
		}
		if p.running {
			s.running--
			todo = append(todo, stop{p.number})
		}
		s.queue = slices.DeleteFunc(s.queue, func(o *pull) bool { return o == p })
		return true
	})
	return todo
}

// gone hears that an asker is no more.
func (s *state) gone(who *actor.PID, now time.Time) []effect {
	a := s.askers[who.String()]
	if a == nil {
		return nil
	}
	todo := s.leave(a)
	s.tidy(a.name)
	return append(todo, s.begin(now)...)
}

// tidy forgets a name that nobody asks for.
func (s *state) tidy(name string) {
	if n := s.images[name]; n != nil && len(n.askers) == 0 && !n.asking {
		delete(s.images, name)
	}
}

// step tells those who want to know how far their pulls are.
func (s *state) step() []effect {
	s.ticking = false
	var todo []effect
	for _, key := range slices.Sorted(maps.Keys(s.askers)) {
		a := s.askers[key]
		if a.stage != pulling || !a.insists {
			continue
		}
		for _, p := range s.images[a.name].pulls {
			if p.key == a.key() {
				todo = append(todo, tell{a.who, pod.ImageStep{Name: a.name, Step: p.progress.Step()}})
			}
		}
	}
	if len(todo) > 0 {
		s.ticking = true
		todo = append(todo, again{stepEvery})
	}
	return todo
}
