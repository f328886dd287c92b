package sim

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/cluster/journal/model"
	"github.com/troupe-sh/troupe/runtime/container"
)

// devil breaks things, each in a way from which the machine has to recover.
type devil struct {
	m     *machine
	w     *World
	fails map[string]time.Duration // when a supervisor's child was last made to panic
	ids   int
	gone  bool // containerd is
}

func newDevil(m *machine) *devil { return &devil{m: m, w: m.w, fails: map[string]time.Duration{}} }

// act does one thing.
func (d *devil) act() {
	switch d.w.Rand().IntN(20) {
	case 0, 1, 2:
		d.endContainer()
	case 3:
		d.removeContainer()
	case 4:
		d.breakSandbox()
	case 5:
		d.foreign()
	case 6, 7:
		d.spoil()
	case 8, 9, 10, 11:
		d.panicSomewhere()
	case 12, 13:
		d.killAgent(d.m.kill)
	case 14:
		d.killAgent(d.m.reboot)
	case 15:
		d.disconnect()
	case 16:
		d.dropEvents()
	case 17:
		d.depose()
	case 18:
		d.fillDisk()
	case 19:
		d.killInCall()
	}
}

// later ends a plague.
func (d *devil) later(end func()) { d.w.AfterFunc(d.w.between(time.Millisecond, 15*time.Second), end) }

func (d *devil) running() (all []container.Container) {
	for _, c := range d.m.audit.containers() {
		if c.State == container.Running {
			all = append(all, c)
		}
	}
	return all
}

func (d *devil) endContainer() {
	if all := d.running(); len(all) > 0 {
		c := pick(d.w, all)
		d.w.Note("devil: end %s", c.ID)
		if d.w.Rand().IntN(4) == 0 {
			d.m.runtime.OOM(c.ID)
		} else {
			d.m.runtime.Exit(c.ID, 137)
		}
	}
}

func (d *devil) removeContainer() {
	if all := d.m.audit.containers(); len(all) > 0 {
		c := pick(d.w, all)
		d.w.Note("devil: remove %s", c.ID)
		d.m.audit.bereft[types.UID(c.Pod.UID)] = true
		d.m.runtime.RemoveBehind(c.ID)
	}
}

func (d *devil) breakSandbox() {
	all := d.m.audit.sandboxes()
	if len(all) == 0 {
		return
	}
	s := pick(d.w, all)
	d.m.audit.broke(types.UID(s.Pod.UID))
	if d.w.Rand().IntN(2) == 0 || d.gone {
		d.w.Note("devil: break sandbox %s", s.ID)
		d.m.runtime.BreakSandbox(s.ID)
		return
	}
	d.w.Note("devil: remove sandbox %s", s.ID)
	d.m.audit.bereft[types.UID(s.Pod.UID)] = true
	if err := d.m.runtime.RemoveSandbox(context.Background(), s.ID); err != nil {
		d.w.Failf("%v", err)
	}
}

// foreign leaves something that no pod wants.
func (d *devil) foreign() {
	if d.gone {
		return
	}
	d.ids++
	owner := container.Pod{Namespace: "default", Name: "foreign", UID: string(d.w.NewUID())}
	id, name := owner.UID, "c"
	ctx := context.Background()
	switch all := d.m.audit.sandboxes(); d.w.Rand().IntN(4) {
	case 0: // a second sandbox of a pod
		if len(all) > 0 {
			owner = pick(d.w, all).Pod
			id = fmt.Sprintf("%s.stray%d", owner.UID, d.ids)
			d.m.audit.foreign[id] = true
		}
	case 1: // in a pod's sandbox
		if len(all) > 0 {
			s := pick(d.w, all)
			id, owner, name = s.ID, s.Pod, "x"
		}
	case 2:
		d.w.Note("devil: files and volumes of %s", owner.UID)
		d.m.disk.log(types.UID(owner.UID), "/logs/"+owner.UID)
		d.m.volumes.have[types.UID(owner.UID)] = map[string]string{}
		return
	}
	if name == "c" {
		if _, err := d.m.runtime.RunSandbox(ctx, container.SandboxSpec{ID: id, Pod: owner}); err != nil {
			return // the network is not there yet
		}
	}
	c := container.Spec{ID: fmt.Sprintf("%s.%s.%d", owner.UID, name, 100+d.ids), Sandbox: id, Pod: owner, Name: name, Image: "deaf:1"}
	d.w.Note("devil: make %s in %s", c.ID, id)
	d.m.audit.foreign[c.ID] = true
	if err := d.m.runtime.Create(ctx, c); err != nil {
		return // a broken sandbox
	}
	if err := d.m.runtime.Start(ctx, c.ID); err != nil {
		d.w.Failf("%v", err)
	}
}

// spoil makes a share of the runtime's and the disk's calls fail.
func (d *devil) spoil() {
	f := faults{before: d.w.Rand().Float64() * 0.5, after: d.w.Rand().Float64() * 0.5}
	d.w.Note("devil: calls fail %.2f", f)
	d.m.faults = f
	d.later(func() { d.m.faults = faults{} })
}

// panicSomewhere makes an actor panic, but never so often that a supervisor may
// give up: what it does then is supervise's own test.
func (d *devil) panicSomewhere() {
	var all []string
	for _, r := range []*supervise.Running{d.m.control, d.m.node} {
		if r == nil || !d.m.host.Up() {
			continue
		}
		for _, a := range r.Actors() {
			parent := a.Path[:max(strings.LastIndex(a.Path, "/"), 0)]
			if parent == "" {
				continue
			}
			if at, ok := d.fails[a.Path]; !ok || d.w.now-at > 3*time.Minute {
				all = append(all, a.Path)
			}
		}
	}
	if len(all) == 0 {
		return
	}
	path := pick(d.w, all)
	d.fails[path] = d.w.now
	r := d.m.node
	if strings.HasPrefix(path, "control/") {
		r = d.m.control
	}
	d.w.Note("devil: %s shall panic", path)
	if err := r.Fail(path); err != nil {
		d.w.Failf("%v", err)
	}
}

// killAgent ends the agent by how, and starts it again in a while.
func (d *devil) killAgent(how func()) {
	if !d.m.host.Up() {
		return
	}
	how()
	d.later(d.m.start)
}

// killInCall ends the agent amid one of its next calls of the runtime.
func (d *devil) killInCall() {
	if !d.m.host.Up() || d.m.killAt > 0 {
		return
	}
	d.m.killAt = 1 + d.w.Rand().IntN(12)
	d.m.died = func() { d.later(d.m.start) }
}

func (d *devil) disconnect() {
	if d.gone {
		return
	}
	d.gone = true
	d.w.Note("devil: containerd is gone")
	d.m.runtime.Disconnect()
	d.later(d.connect)
}

func (d *devil) connect() {
	if d.gone {
		d.gone = false
		d.w.Note("devil: containerd is back")
		d.m.runtime.Reconnect()
	}
}

// dropEvents loses what the runtime tells, until it says so.
func (d *devil) dropEvents() {
	if d.m.dropping || d.gone {
		return
	}
	d.w.Note("devil: events are lost")
	d.m.dropping = true
	d.later(func() {
		d.m.dropping = false
		if !d.gone {
			d.m.runtime.Disconnect()
			d.m.runtime.Reconnect() // with a Gap
		}
	})
}

func (d *devil) depose() {
	d.w.Note("devil: depose")
	if d.w.Rand().IntN(2) == 0 {
		d.m.journal.Depose()
		return
	}
	d.m.journal.Lose(model.Fate(d.w.Rand().IntN(3)))
}

func (d *devil) fillDisk() {
	d.w.Note("devil: the disk is full")
	d.m.journal.SetFull(true)
	d.later(func() { d.m.journal.SetFull(false) })
}

// rest ends every plague.
func (d *devil) rest() {
	d.m.killAt = 0
	d.w.Run(16 * time.Second) // they end by themselves
	d.connect()
	d.m.journal.SetFull(false)
	d.m.journal.SetFaults(model.Faults{})
	d.w.Note("devil: rests")
	if !d.m.host.Up() || d.m.dropping || d.m.faults != (faults{}) {
		d.w.Failf("the devil does not rest")
	}
}
