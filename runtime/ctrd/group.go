package ctrd

import "sync"

// groups lets the containers of a sandbox share one shim. A group is named
// after the container that began it, and lasts as long as one of its containers
// does. A shim ends when its last task is removed: nobody may join it then.
type groups struct {
	mu  sync.Mutex
	all map[string]*group // by sandbox
}

type group struct {
	gate    sync.RWMutex // held alone where the shim starts or may end
	name    string
	members map[string]bool // containers; true with a task
}

func (g *groups) get(sandbox string) *group {
	if g.all == nil {
		g.all = map[string]*group{}
	}
	if g.all[sandbox] == nil {
		g.all[sandbox] = &group{members: map[string]bool{}}
	}
	return g.all[sandbox]
}

// of is the group that a new container joins.
func (g *groups) of(sandbox, id string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.get(sandbox)
	if len(s.members) == 0 {
		s.name = id
	}
	if _, ok := s.members[id]; !ok {
		s.members[id] = false
	}
	return s.name
}

// add tells of a container whose group is known.
func (g *groups) add(sandbox, name, id string) {
	if sandbox == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.get(sandbox)
	if _, ok := s.members[id]; !ok {
		s.name, s.members[id] = name, true // a task too many only costs a wait
	}
}

func (g *groups) remove(sandbox, id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.all[sandbox]; s != nil {
		delete(s.members, id)
	}
}

func (g *groups) forget(sandbox string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.all, sandbox)
}

// enter waits until a task may be made, and returns what to call after it.
func (g *groups) enter(sandbox string) (done func()) {
	g.mu.Lock()
	s := g.get(sandbox)
	first := true
	for _, task := range s.members {
		first = first && !task
	}
	g.mu.Unlock()
	if first {
		s.gate.Lock()
		return s.gate.Unlock
	}
	s.gate.RLock()
	return s.gate.RUnlock
}

// run tells that a container has a task.
func (g *groups) run(sandbox, id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.get(sandbox).members[id] = true
}

// leave waits until a task may be removed, and returns what to call after it.
func (g *groups) leave(sandbox, id string) (done func()) {
	g.mu.Lock()
	s := g.get(sandbox)
	g.mu.Unlock()
	s.gate.Lock()
	return func() {
		g.mu.Lock()
		if _, ok := s.members[id]; ok {
			s.members[id] = false
		}
		g.mu.Unlock()
		s.gate.Unlock()
	}
}
