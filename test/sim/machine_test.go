package sim

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/model"
	"github.com/troupe-sh/troupe/runtime/container/fake"
)

// TestMachine is one whole machine: both trees on the journal's model and the
// fake runtime. A user changes what is wanted, a devil breaks what he can, and
// when both are done everything has to be as the user wants it. What must hold
// at every step is in the auditor.
func TestMachine(t *testing.T) { Run(t, wholeMachine) }

const (
	nodeName = "n1"
	podRange = "10.244.0.0/16"
	healing  = 30 * time.Minute // until all is as wanted, at the latest
)

func wholeMachine(w *World) {
	m := newMachine(w)
	m.start()
	m.watch()
	u, d := newUser(m), newDevil(m)
	m.user = u
	w.Run(w.between(0, 2*time.Second)) // some begin before the machine is ready
	for range 15 + w.Rand().IntN(25) {
		if w.Rand().IntN(2) == 0 {
			u.act()
		} else {
			d.act()
		}
		w.Run(w.delay(500*time.Millisecond, 5*time.Second, 40*time.Second))
	}
	d.rest()
	u.rest()
	m.settle(u)
}

// machine is what there is beside World: what survives the agent, and the agent.
type machine struct {
	w       *World
	host    *Host
	log     *slog.Logger
	runtime *fake.Runtime
	disk    *memoryDisk
	volumes *memoryVolumes
	probes  *memoryProbes
	boots   int
	journal *model.Journal
	audit   *auditor
	user    *user
	faults  faults

	runtimeLife *life // of the calls that its agent makes
	reigns      []journal.Leadership
	control     *supervise.Running
	ending      bool // control is being stopped
	node        *supervise.Running
	client      *supervise.Running
	answers     map[string]func(any) // to the user's commits, by ID
	dropping    bool                 // runtime events are lost
	killAt      int                  // the agent dies amid the call so far ahead; 0: in none
	died        func()               // then this is called
}

func newMachine(w *World) *machine {
	m := &machine{
		w: w, log: slog.New(slog.DiscardHandler), answers: map[string]func(any){},
		runtime: fake.New(fake.Options{Now: w.Now, AfterFunc: func(d time.Duration, f func()) func() { return w.AfterFunc(d, f) }}),
	}
	m.disk = newMemoryDisk(m)
	m.volumes = newMemoryVolumes(m)
	m.probes = newMemoryProbes(m)
	m.journal = model.New(model.Options{
		Decode: api.Decode, Seed: w.Seed(),
		After:  func(d time.Duration, f func()) { w.AfterFunc(d, f) },
		Faults: model.Faults{Lose: 0.01, NoRoom: 0.01, Away: 2 * time.Second},
	})
	for name, b := range images {
		m.runtime.AddImage(name, b)
	}
	m.audit = newAuditor(m)
	return m
}

// start starts the agent as trouped does.
func (m *machine) start() {
	if m.host == nil {
		m.host = m.w.Host(nodeName)
	} else {
		m.host.Boot()
	}
	m.host.Failed = func(s supervise.Status) {
		if s.LastFailure != onPurpose {
			m.w.Failf("%s panicked at %s: %s\n%s", s.Path, s.LastMessage, s.LastFailure, s.LastStack)
		}
	}
	m.control, m.node, m.reigns, m.ending = nil, nil, nil, false
	m.runtimeLife = m.host.life
	life := m.host.life
	m.journal.Leadership(func(l journal.Leadership) {
		if life.over() {
			return
		}
		m.w.Note("leader %t, epoch %v", l.Leader, l.Epoch)
		m.reigns = append(m.reigns, l)
		m.reign()
	})
	m.startClient()
	m.startNode()
}

const onPurpose = "made to fail on purpose"

// reign starts the control tree with a reign and stops it with the end of it,
// one after the other.
func (m *machine) reign() {
	for len(m.reigns) > 0 {
		if m.control != nil {
			select {
			case <-m.control.Done():
				m.control, m.ending = nil, false
			default:
				if !m.ending {
					m.ending = true
					m.control.BeginStop()
				}
				return // the rest once it has stopped: see watch
			}
		}
		l := m.reigns[0]
		m.reigns = m.reigns[1:]
		if l.Leader {
			m.startControl(l.Epoch)
		}
	}
}

func (m *machine) startControl(epoch journal.Epoch) {
	m.control = m.tree(actors.Control(actors.ControlDeps{
		System: m.host.System, Journal: m.journal, Epoch: epoch, PodCIDR: netip.MustParsePrefix(podRange),
		Seal:   func(_ api.Key, value []byte) []byte { return value },
		Kernel: m.host.Kernel(), Log: m.log,
	}))
}

func (m *machine) startNode() {
	system := m.host.System
	m.node = m.tree(actors.Machine(actors.MachineDeps{
		System: system, Node: nodeName, Feed: feed.FromHub(m.journal.Hub(), nodeName),
		Registry: func() *actor.PID { return system.NewLocalPID(actors.RegistryPath) },
		Runtime:  newPortal(m), Volumes: m.volumes, Probes: m.probes, Disk: m.disk, Host: facts{m},
		Machine:     thisMachine,
		ClusterCIDR: netip.MustParsePrefix(podRange), Version: "v1.36.3+troupe", Backoff: 500 * time.Millisecond,
		Kernel: m.host.Kernel(), Log: m.log,
	}))
}

func (m *machine) tree(n supervise.Node) *supervise.Running {
	r, err := m.host.Start(n, func(err error) { m.w.Failf("the %s tree fell: %v", n.Name, err) })
	if err != nil {
		m.w.Failf("%v", err)
	}
	return r
}

// kill ends the agent as SIGKILL does: what it had in memory is gone.
func (m *machine) kill() {
	m.host.Crash()
	m.audit.killed()
	j, err := m.journal.Reopen()
	if err != nil {
		m.w.Failf("the journal does not open again: %v", err)
	}
	m.journal = j
	m.control, m.node, m.client, m.reigns = nil, nil, nil, nil
}

// reboot is the machine's; an agent that runs dies with it.
func (m *machine) reboot() {
	m.w.Note("reboot")
	if m.host.Up() {
		m.kill()
	}
	m.boots++
	m.runtime.Reboot()
	m.disk.reboot()
}

// watch makes the auditor look after every step.
func (m *machine) watch() {
	m.w.Check(func() error {
		if len(m.reigns) > 0 && m.host.Up() {
			m.reign()
		}
		return m.audit.step()
	})
}

// settle waits until all is as the user wants it, and stays so.
func (m *machine) settle(u *user) {
	const quiet = 70 * time.Second // the machine is looked over twice
	m.reach(u, healing)
	calm := !u.restless()
	seq, starts := m.journal.Hub().Seq(), m.audit.starts
	m.w.Run(quiet)
	if !calm {
		m.reach(u, healing)
	} else if err := m.unsettled(u); err != nil {
		m.w.Failf("it did not stay as wanted: %w", err)
	} else if m.audit.starts != starts || m.audit.busy(seq) {
		m.w.Failf("no rest: %d changes and %d starts in %s of quiet: %s", m.journal.Hub().Seq()-seq, m.audit.starts-starts, quiet, m.audit.last)
	}
	idle := func() error {
		for _, r := range []*supervise.Running{m.control, m.node} {
			for _, a := range r.Actors() {
				if a.Mailbox > 0 || a.State != supervise.Active {
					return fmt.Errorf("%s is %s with %d messages", a.Path, a.State, a.Mailbox)
				}
			}
		}
		return nil
	}
	var err error
	if !m.w.Until(time.Minute, func() bool { err = idle(); return err == nil }) {
		m.w.Failf("stuck: %w", err)
	}
}

func (m *machine) unsettled(u *user) error { return errors.Join(u.unsettled(), m.audit.unsettled()) }

// reach waits until all is as the user wants it.
func (m *machine) reach(u *user, limit time.Duration) {
	const between = time.Second
	var err error
	for next := m.w.now; ; next = m.w.now + between {
		m.w.Run(next - m.w.now)
		if err = m.unsettled(u); err == nil {
			return
		}
		if limit -= between; limit < 0 {
			m.w.Failf("%s after the last fault: %w", healing, err)
		}
	}
}
