package machine_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/actors/actortest"
	"github.com/troupe-sh/troupe/actors/machine"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/host"
)

// world is a registry of one Node object, with its feed, and a host.
type world struct {
	*actortest.Kit
	mu      sync.Mutex // the registry and the actor's work run side by side
	runtime *fake.Runtime
	facts   host.Facts
	blind   error // of Facts
	node    *corev1.Node
	version int
	refuse  error
	writes  []string
	events  []string
	wake    func()
}

// set changes what the world is.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) Facts(context.Context) (host.Facts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blind != nil {
		return host.Facts{}, w.blind
	}
	return w.facts, nil
}

// Node, Close, WatchNode, Watch, Sources and Pods are the feed.
func (w *world) Node() (*corev1.Node, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.node, w.node != nil, nil
}
func (w *world) Close()                               {}
func (w *world) WatchNode(wake func()) feed.NodeWatch { w.wake = wake; return w }
func (w *world) Watch(uint64, func()) feed.Cursor     { return nil }

func (w *world) Sources(*corev1.Pod) (api.Sources, error) { return api.Sources{}, nil }
func (w *world) Pods() ([]*corev1.Pod, uint64, error)     { return nil, 0, nil }
func (w *world) store(n *corev1.Node) {
	w.version++
	n.ResourceVersion = string(rune('0' + w.version))
	w.node = n
}

func (w *world) registry(ctx actor.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m := ctx.Message().(type) {
	case *command.Sync:
		ctx.Respond(&command.Synced{})
	case *command.Commit:
		if w.refuse != nil {
			ctx.Respond(&command.Committed{ID: m.ID, Err: w.refuse})
			return
		}
		results := make([]command.Result, len(m.Changes))
		for i, c := range m.Changes {
			if e, ok := c.Object.(*corev1.Event); ok {
				w.events = append(w.events, e.Reason)
				continue
			}
			n := c.Object.(*corev1.Node).DeepCopy()
			switch c.Op {
			case command.Create:
				w.writes = append(w.writes, "create")
				n.UID, n.Spec.PodCIDR = "n-uid", "10.1.0.0/24"
			case command.Update:
				w.writes = append(w.writes, "update")
			case command.Status:
				w.writes = append(w.writes, "status "+ready(n))
				status := n.Status
				n = w.node.DeepCopy()
				n.Status = status
			}
			w.store(n)
			results[i].Object = n
		}
		ctx.Respond(&command.Committed{ID: m.ID, Results: results})
	}
}

func ready(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return string(c.Status)
		}
	}
	return "none"
}

func (w *world) written() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.writes
	w.writes = nil
	return out
}

func run(t *testing.T, body func(w *world)) {
	t.Helper()
	w := &world{
		runtime: fake.New(fake.Options{}),
		facts: host.Facts{
			Addr: netip.MustParseAddr("192.0.2.1"), OS: "linux", Arch: "arm64", OSImage: "Debian", Kernel: "6.1", MachineID: "m", BootID: "b",
			CPUs: 4, Memory: 4 << 30, MemoryFree: 2 << 30, Storage: 100 << 30, StorageFree: 50 << 30, PIDs: 10, PIDsMax: 1000,
		},
	}
	var kit *actortest.Kit
	producer := func() actor.Actor {
		return machine.New(machine.Config{
			Kernel: mailbox.Real(), Log: kit.Log(), Node: "n1", Feed: w, Runtime: w.runtime, Host: w, Version: "v1", MaxPods: 50,
			Registry: func() *actor.PID { return kit.PID("control/registry") }, Labels: map[string]string{"zone": "a"},
			Taints: []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}, ClusterCIDR: netip.MustParsePrefix("10.1.0.0/16"),
		})()
	}
	actortest.Run(t, producer, func(k *actortest.Kit) {
		kit, w.Kit = k, k
		k.Play("control/registry", w.registry)
		body(w)
	})
}

func TestAMachineRegisters(t *testing.T) {
	run(t, func(w *world) {
		w.Start()
		if got := w.written(); !slices.Equal(got, []string{"create", "status False", "status True"}) && !slices.Equal(got, []string{"create", "status True"}) {
			t.Errorf("writes %v", got)
		}
		if !slices.Equal(w.events, []string{"NodeReady"}) {
			t.Errorf("events %v", w.events)
		}
		n := w.node
		for k, v := range map[string]string{corev1.LabelHostname: "n1", corev1.LabelOSStable: "linux", corev1.LabelArchStable: "arm64", "zone": "a"} {
			if n.Labels[k] != v {
				t.Errorf("label %s is %q, want %q", k, n.Labels[k], v)
			}
		}
		s := n.Status
		if s.Capacity.Cpu().Value() != 4 || s.Capacity.Pods().Value() != 50 || s.Capacity.Memory().Value() != 4<<30 ||
			s.Allocatable.Memory().Value() != 4<<30-100<<20 || s.Allocatable.StorageEphemeral().Value() != 90<<30 {
			t.Errorf("capacity %v, allocatable %v", s.Capacity, s.Allocatable)
		}
		if len(s.Addresses) != 2 || s.Addresses[0] != (corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}) {
			t.Errorf("addresses %v", s.Addresses)
		}
		if i := s.NodeInfo; i.ContainerRuntimeVersion != "fake://1" || i.KubeletVersion != "v1" || i.KernelVersion != "6.1" || i.BootID != "b" || i.MachineID != "m" {
			t.Errorf("info %+v", i)
		}
		var reasons []string
		for _, c := range s.Conditions {
			reasons = append(reasons, c.Reason)
		}
		if got := strings.Join(reasons, " "); got != "KubeletHasSufficientMemory KubeletHasNoDiskPressure KubeletHasSufficientPID KubeletReady" {
			t.Errorf("reasons %s", got)
		}
		if len(n.Spec.Taints) != 1 {
			t.Errorf("taints %v", n.Spec.Taints)
		}
		if w.runtime.Calls("Configure") != 1 {
			t.Errorf("configured %d times", w.runtime.Calls("Configure"))
		}
	})
}

func TestNothingChangesNothingIsWritten(t *testing.T) {
	run(t, func(w *world) {
		w.Start()
		w.written()
		w.set(func() { w.facts.MemoryFree -= 1 << 20 })
		w.Advance(4*time.Minute + 50*time.Second)
		if got := w.written(); len(got) > 0 {
			t.Errorf("writes %v", got)
		}
		w.Advance(time.Minute)
		if got := w.written(); len(got) != 1 {
			t.Errorf("heartbeats %v, want one", got)
		}
		w.set(func() { w.facts.StorageFree = 1 << 30 })
		w.Advance(6 * time.Second)
		if got := w.written(); len(got) != 1 || w.node.Status.Conditions[1].Reason != "KubeletHasDiskPressure" {
			t.Errorf("writes %v, conditions %+v", got, w.node.Status.Conditions)
		}
	})
}

func TestTheRuntimeGoes(t *testing.T) {
	run(t, func(w *world) {
		w.Start()
		w.written()
		w.runtime.Disconnect()
		w.Advance(6 * time.Second)
		if got := w.written(); !slices.Equal(got, []string{"status False"}) {
			t.Errorf("writes %v", got)
		}
		if c := w.node.Status.Conditions[3]; c.Reason != "KubeletNotReady" || !strings.HasPrefix(c.Message, "container runtime is down: ") {
			t.Errorf("%+v", c)
		}
		w.runtime.Reconnect()
		w.Advance(0) // heard of at once
		if ready(w.node) != "True" || w.runtime.Calls("Configure") != 2 {
			t.Errorf("Ready is %s, configured %d times", ready(w.node), w.runtime.Calls("Configure"))
		}
		if !slices.Equal(w.events, []string{"NodeReady", "NodeNotReady", "NodeReady"}) {
			t.Errorf("events %v", w.events)
		}
	})
}

func TestTheNetworkCannotBeConfigured(t *testing.T) {
	run(t, func(w *world) {
		w.runtime.Inject(fake.Fault{Method: "Configure", Err: errors.New("no such device")})
		w.Start()
		if c := w.node.Status.Conditions[3]; c.Status != corev1.ConditionFalse || c.Message != "container runtime network not ready: no such device" {
			t.Errorf("%+v", c)
		}
		w.Advance(6 * time.Second)
		if ready(w.node) != "True" {
			t.Errorf("Ready is %s", ready(w.node))
		}
	})
}

func TestWhatOthersDoToTheNode(t *testing.T) {
	run(t, func(w *world) {
		w.Start()
		w.written()
		n := w.node.DeepCopy()
		delete(n.Labels, corev1.LabelArchStable)
		n.Labels["theirs"] = "yes"
		n.Spec.Unschedulable = true
		w.store(n)
		w.wake()
		w.Advance(0)
		if w.node.Labels[corev1.LabelArchStable] != "arm64" || w.node.Labels["theirs"] != "yes" || !w.node.Spec.Unschedulable {
			t.Errorf("%+v", w.node)
		}
		w.node = nil // somebody deleted it
		w.wake()
		w.Advance(0)
		if w.node == nil || ready(w.node) != "True" {
			t.Errorf("%+v", w.node)
		}
	})
}

func TestARegistryThatRefusesIsAskedAgain(t *testing.T) {
	run(t, func(w *world) {
		w.set(func() { w.refuse = errors.New("no room") })
		w.Start()
		w.Advance(10 * time.Second)
		if w.node != nil {
			t.Fatal("stored")
		}
		w.set(func() { w.refuse = nil })
		w.Advance(6 * time.Second)
		if w.node == nil || ready(w.node) != "True" {
			t.Errorf("%+v", w.node)
		}
	})
}

func TestARestartWritesNothingTwice(t *testing.T) {
	run(t, func(w *world) {
		w.Start()
		w.written()
		w.Crash()
		w.Crash()
		for _, s := range w.written() {
			if s == "create" {
				t.Error("created again")
			}
		}
		if ready(w.node) != "True" {
			t.Errorf("Ready is %s", ready(w.node))
		}
		w.Tell(&command.Synced{})
		w.Tell(&command.Committed{ID: "of another"})
		w.Tell(container.Event{Kind: container.Gap})
	})
}

func TestAMachineThatCannotBeReadIsNotReady(t *testing.T) {
	run(t, func(w *world) {
		w.Start()
		capacity := w.node.Status.Capacity
		w.set(func() { w.blind = errors.New("no such disk") })
		w.Advance(time.Minute) // more checks than the actor has restarts
		i := slices.IndexFunc(w.node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
		if c := w.node.Status.Conditions[i]; c.Status != corev1.ConditionFalse || !strings.Contains(c.Message, "no such disk") {
			t.Errorf("condition %+v", c)
		}
		if got := w.node.Status.Capacity; !got.Memory().Equal(*capacity.Memory()) || got.Memory().IsZero() {
			t.Errorf("capacity %v, want the last known %v", got, capacity)
		}
		w.set(func() { w.blind = nil })
		w.Advance(6 * time.Second)
		if ready(w.node) != "True" {
			t.Errorf("conditions %+v", w.node.Status.Conditions)
		}
	})
}
