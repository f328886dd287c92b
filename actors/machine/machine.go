// Package machine keeps the Node object of this machine: it registers it,
// reports what the machine is and how it fares, and gives the runtime the part
// of the pod network that the registry assigned.
//
//	Supervisor  node: 5 restarts in 10m
//	Accepts     *command.Synced *command.Committed writer.Retry container.Event
//	Emits       *command.Sync *command.Commit to the registry
//	On restart  waits until its predecessor's writes have settled, then looks afresh
package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/writer"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/host"
)

// New returns what spawns the actor.
func New(c Config) actor.Producer {
	return func() actor.Actor {
		work := c.Kernel.New()
		return &machine{config: c, work: work, writer: writer.New(c.Registry, work), state: state{config: c}}
	}
}

type machine struct {
	config      Config
	work        mailbox.Work
	writer      *writer.Writer
	state       state
	watch       feed.NodeWatch
	unsubscribe func()
	checking    bool
	reported    time.Time // when the status was last written
}

// What the actor tells itself.
type (
	woken   struct{} // the Node object may have changed
	check   struct{} // it is time to look
	checked struct {
		facts   host.Facts
		err     error // of facts
		runtime string
		down    error // of the runtime
	}
	configured struct {
		network container.Network
		err     error
	}
)

// Receive implements [actor.Actor].
func (m *machine) Receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		m.writer.Sync(ctx)
	case *command.Synced:
		if m.writer.Synced() {
			m.begin(ctx)
		}
	case *command.Committed:
		m.committed(ctx, msg)
	case writer.Retry:
		m.writer.Retry(ctx, msg)
	case woken:
		m.look(ctx)
	case container.Event:
		m.check(ctx)
	case check:
		m.check(ctx)
		m.work.After(ctx, checkEvery, check{})
	case checked:
		m.checked(ctx, msg)
	case configured:
		m.configured(ctx, msg)
	case *actor.Stopping, *actor.Restarting:
		m.work.Cancel()
		if m.watch != nil {
			m.watch.Close()
			m.unsubscribe()
		}
	case *actor.DeadLetterResponse: // who else did not hear is asked again in time
		m.writer.Unheard(ctx, msg)
	case actor.SystemMessage, actor.AutoReceiveMessage:
	default:
		m.config.Log.Warn("unknown message", slog.String("actor", ctx.Self().Id), slog.String("message", fmt.Sprintf("%T", msg)))
	}
}

func (m *machine) begin(ctx actor.Context) {
	if m.watch != nil {
		return // it has begun: the answer came twice
	}
	self, root := ctx.Self(), ctx.ActorSystem().Root
	m.unsubscribe = m.config.Runtime.Subscribe(func(e container.Event) {
		if e.Kind == container.Gap { // it was away, or is back
			root.Send(self, e)
		}
	})
	m.follow(ctx)
	m.check(ctx)
	m.work.After(ctx, checkEvery, check{})
}

func (m *machine) follow(ctx actor.Context) {
	self, root := ctx.Self(), ctx.ActorSystem().Root
	m.watch = m.config.Feed.WatchNode(func() { root.Send(self, woken{}) })
}

// patience is how long the runtime may take to say that it is there.
const patience = 4 * time.Second

func (m *machine) check(ctx actor.Context) {
	if m.checking {
		return
	}
	m.checking = true
	host, runtime := m.config.Host, m.config.Runtime
	m.work.Go(ctx, func(c context.Context) any {
		c, cancel := context.WithTimeout(c, patience)
		defer cancel()
		var r checked
		r.facts, r.err = host.Facts(c)
		r.runtime, r.down = runtime.Version(c)
		return r
	})
}

func (m *machine) checked(ctx actor.Context, c checked) {
	m.checking = false
	if c.err != nil && m.state.factsErr == nil {
		m.config.Log.Warn("read what this machine is", slog.Any("error", c.err))
	}
	if c.err == nil { // else the last ones stand, and the next check tries again
		m.state.facts, m.state.checked = c.facts, true
	}
	m.state.factsErr = c.err
	if c.down != nil && m.state.runtimeErr == nil {
		m.config.Log.Warn("the container runtime does not answer", slog.Any("error", c.down))
	}
	if c.down == nil && m.state.runtimeErr != nil {
		m.config.Log.Info("the container runtime answers again")
		m.state.configured = false // it may be another one
	}
	m.state.runtime, m.state.runtimeErr = c.runtime, c.down
	m.state.refused = false
	m.look(ctx)
}

func (m *machine) configured(ctx actor.Context, c configured) {
	m.state.configures = false
	m.state.configured, m.state.networkErr, m.state.refused = c.err == nil, c.err, c.err != nil
	if c.err != nil {
		m.config.Log.Warn("configure the pod network", slog.Any("error", c.err))
		m.report(ctx)
		return // the next check tries again
	}
	m.look(ctx)
}

// look compares the Node object with the machine.
func (m *machine) look(ctx actor.Context) {
	if m.watch == nil {
		return // a message of an earlier life: it has not begun
	}
	node := m.node(ctx)
	if n, ok := m.state.configure(node); ok {
		runtime := m.config.Runtime
		m.work.Go(ctx, func(c context.Context) any { return configured{n, runtime.Configure(c, n)} })
	}
	m.report(ctx)
}

// node is the Node object as it stands; nil if there is none.
func (m *machine) node(ctx actor.Context) *corev1.Node {
	node, ok, err := m.watch.Node()
	if errors.Is(err, journal.ErrGone) {
		m.watch.Close()
		m.follow(ctx)
		node, ok, err = m.watch.Node()
	}
	if err != nil {
		panic(fmt.Errorf("read the Node object %s: %w", m.config.Node, err))
	}
	if !ok {
		return nil
	}
	return node
}

// report writes what the registry does not know yet.
func (m *machine) report(ctx actor.Context) {
	if !m.state.checked || m.writer.Busy() {
		return
	}
	now := m.work.Now()
	key := api.Key{Resource: "nodes", Name: m.config.Node}
	node := m.node(ctx)
	if node == nil {
		m.reported = now
		fresh := m.state.fresh(now)
		m.writer.Commit(ctx, command.Change{Op: command.Create, Key: key, Object: fresh})
		return
	}
	var changes []command.Change
	if labeled := m.state.labeled(node); labeled != nil {
		version, err := strconv.ParseUint(node.ResourceVersion, 10, 64)
		if err != nil {
			panic(fmt.Errorf("resourceVersion of the Node object %s: %w", m.config.Node, err))
		}
		changes = append(changes, command.Change{Op: command.Update, Key: key, Object: labeled, UID: node.UID, Version: version})
	}
	status := m.state.status(node, now)
	if worth(node.Status, status) || m.reported.IsZero() || now.Sub(m.reported) >= reportEvery {
		m.reported = now
		changes = append(changes, command.Change{Op: command.Status, Key: key, UID: node.UID, Object: &corev1.Node{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID},
			Status:     status,
		}})
		if before, after := isReady(node.Status), isReady(status); before != after {
			changes = append(changes, m.event(after, now))
		}
	}
	if len(changes) > 0 {
		m.writer.Commit(ctx, changes...)
	}
}

// event tells people that the machine became ready, or ceased to be.
func (m *machine) event(ready bool, now time.Time) command.Change {
	reason := "NodeReady"
	if !ready {
		reason = "NodeNotReady"
	}
	at := metav1.NewTime(now.Truncate(time.Second))
	e := &corev1.Event{
		TypeMeta:            metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:          metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: m.config.Node + "." + string(m.work.NewUID())[:18]},
		InvolvedObject:      corev1.ObjectReference{Kind: "Node", Name: m.config.Node, UID: types.UID(m.config.Node)},
		Reason:              reason,
		Message:             fmt.Sprintf("Node %s status is now: %s", m.config.Node, reason),
		Type:                corev1.EventTypeNormal,
		Source:              corev1.EventSource{Component: "troupe", Host: m.config.Node},
		FirstTimestamp:      at,
		LastTimestamp:       at,
		Count:               1,
		ReportingController: "troupe",
		ReportingInstance:   m.config.Node,
	}
	return command.Change{Op: command.Create, Key: api.KeyOf(e), Object: e}
}

// retry is how long a refused report rests.
const retry = time.Second

func (m *machine) committed(ctx actor.Context, c *command.Committed) {
	done, results, err, ok := m.writer.Committed(ctx, c)
	if !ok {
		return
	}
	for _, r := range results {
		if err == nil && r.Err != nil {
			err = r.Err
		}
	}
	if err != nil {
		m.config.Log.Warn("report the machine", slog.Int("changes", len(done.Changes)), slog.Any("error", err))
		m.work.After(ctx, retry, woken{})
		return
	}
	m.look(ctx)
}
