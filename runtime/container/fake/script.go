package fake

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/troupe-sh/troupe/runtime/container"
)

// AddImage makes an image present under name, and gives its containers a behaviour.
func (r *Runtime) AddImage(name string, b Behaviour) container.Image {
	full, err := container.ImageName(name)
	if err != nil {
		panic(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(full)))
	r.add(full, id, 1<<20, nil)
	r.behaviours[name], r.behaviours[full], r.behaviours[id] = b, b, b
	i, _ := r.find(id)
	return i
}

// Script asks f first for the behaviour of each container made from now on.
func (r *Runtime) Script(f func(container.Spec) (Behaviour, bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.script = f
}

// Inject makes the next call of the fault's method fail. Several wait in order.
func (r *Runtime) Inject(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, f)
}

// Exit ends the process of a container, as kill(1) on the machine does.
func (r *Runtime) Exit(id string, code uint32) {
	r.mu.Lock()
	defer r.end()
	if c, ok := r.containers[id]; ok {
		r.exit(c, code, false)
	}
}

// OOM lets the kernel end the process of a container for memory.
func (r *Runtime) OOM(id string) {
	r.mu.Lock()
	defer r.end()
	if c, ok := r.containers[id]; ok {
		r.exit(c, 137, true)
	}
}

// RemoveBehind removes a container behind everybody's back.
func (r *Runtime) RemoveBehind(id string) {
	r.mu.Lock()
	defer r.end()
	if c, ok := r.containers[id]; ok {
		r.remove(c)
	}
}

// BreakSandbox makes a sandbox not ready, as someone who unmounts its
// namespaces does. Its containers go on.
func (r *Runtime) BreakSandbox(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b, ok := r.sandboxes[id]; ok {
		b.ready = false
	}
}

// Disconnect takes the runtime away: every method answers ErrGone and events
// are lost. What runs goes on.
func (r *Runtime) Disconnect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
}

// Reconnect brings it back, with a Gap.
func (r *Runtime) Reconnect() {
	r.mu.Lock()
	defer r.end()
	if r.gone {
		r.gone = false
		r.emit(container.Event{Kind: container.Gap})
	}
}

// Reboot is the machine's: nothing runs any more, how it ended is unknown, and
// every sandbox must be mended. Records, addresses and images stay.
func (r *Runtime) Reboot() {
	r.mu.Lock()
	defer r.end()
	for _, c := range r.containers {
		if c.State == container.Running {
			r.halt(c)
			c.State, c.PID = container.Exited, 0
		}
	}
	for _, b := range r.sandboxes {
		b.ready = false
	}
	r.queue = nil
	r.gone = false
	r.emit(container.Event{Kind: container.Gap})
}

// Signals are what a container was sent, in order.
func (r *Runtime) Signals(id string) []syscall.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.containers[id]; ok {
		return append([]syscall.Signal(nil), c.signals...)
	}
	return nil
}

// Spec is what a container was made of.
func (r *Runtime) Spec(id string) (container.Spec, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.containers[id]; ok {
		return c.spec, true
	}
	return container.Spec{}, false
}

// Message is what a container wrote to its termination message file.
func (r *Runtime) Message(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.containers[id]; ok && c.State == container.Exited {
		return c.behaviour.Message
	}
	return ""
}

// Calls counts the calls of a method, failed ones included.
func (r *Runtime) Calls(method string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[method]
}

// All is every container, whether or not the runtime answers.
func (r *Runtime) All() []container.Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]container.Container, 0, len(r.containers))
	for _, c := range r.sorted() {
		all = append(all, c.Container)
	}
	return all
}

// AllSandboxes is every sandbox, whether or not the runtime answers.
func (r *Runtime) AllSandboxes() []container.Sandbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]container.Sandbox, 0, len(r.sandboxes))
	for _, id := range slices.Sorted(maps.Keys(r.sandboxes)) {
		all = append(all, r.sandboxes[id].view())
	}
	return all
}
