// Package family keeps one child actor for each object of a kind and tells it
// to look when something that concerns it changed.
//
//	Supervisor  control: one-for-one for the families
//	Accepts     nothing but what it tells itself
//	Emits       reconcile.Look to its children
//	On restart  its children are stopped and made anew from what the hub holds
package family

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/reconcile"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// Route tells which objects' actors a change concerns.
type Route func(journal.Changed) []api.Key

// Config says whose family it is.
type Config struct {
	Deps     reconcile.Deps
	Resource string                           // each of its objects has a child
	Why      string                           // what a child does, in a line
	Also     []string                         // further resources whose changes matter to children
	Route    Route                            // which children a change of those concerns
	Child    func(key api.Key) actor.Producer // what spawns a child
}

// New returns what spawns a family.
func New(c Config) actor.Producer {
	return func() actor.Actor {
		return &family{config: c, children: map[api.Key]*child{}, keys: map[string]api.Key{}}
	}
}

type family struct {
	config   Config
	cursor   *journal.Cursor
	stopping bool
	children map[api.Key]*child
	keys     map[string]api.Key // by the child's PID
}

type child struct {
	pid    *actor.PID
	ending bool
}

// woken: the hub has changes to read.
type woken struct{}

// Receive implements [actor.Actor].
func (f *family) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		f.begin(ctx)
	case woken:
		f.pull(ctx)
	case *actor.Terminated:
		f.ended(ctx, m.Who)
	case *actor.Stopping, *actor.Restarting:
		f.stopping = true
		if f.cursor != nil {
			f.cursor.Close()
		}
	case actor.SystemMessage, actor.AutoReceiveMessage:
	default:
		f.config.Deps.Log.Warn("unknown message", "actor", ctx.Self().Id, "message", fmt.Sprintf("%T", m))
	}
}

// begin makes the family fit what the hub holds.
func (f *family) begin(ctx actor.Context) {
	if f.cursor != nil {
		f.cursor.Close()
	}
	hub := f.config.Deps.Hub
	self, root := ctx.Self(), ctx.ActorSystem().Root
	f.cursor = hub.Subscribe(hub.Seq(), func() { root.Send(self, woken{}) }, append([]string{f.config.Resource}, f.config.Also...)...)
	wanted := map[api.Key]bool{}
	for _, record := range hub.List(f.config.Resource, "") {
		wanted[record.Key] = true
		f.look(ctx, record.Key)
	}
	for _, key := range slices.SortedFunc(maps.Keys(f.children), api.Key.Compare) {
		if !wanted[key] {
			f.end(ctx, key)
		}
	}
}

const pullMax = 1000

func (f *family) pull(ctx actor.Context) {
	for {
		changes, _, err := f.cursor.Next(pullMax)
		if errors.Is(err, journal.ErrGone) {
			f.begin(ctx)
			return
		}
		if err != nil {
			panic(fmt.Errorf("read changes: %w", err))
		}
		told := map[api.Key]bool{}
		for _, c := range changes {
			for _, key := range f.concerns(c) {
				if !told[key] {
					told[key] = true
					f.look(ctx, key)
				}
			}
		}
		if len(changes) < pullMax {
			return
		}
	}
}

// concerns lists the children that a change matters to.
func (f *family) concerns(c journal.Changed) []api.Key {
	key := keyOf(c)
	if key.Resource == f.config.Resource {
		keys := []api.Key{key}
		if f.config.Route != nil {
			keys = append(keys, f.config.Route(c)...)
		}
		return keys
	}
	return f.config.Route(c)
}

func keyOf(c journal.Changed) api.Key {
	if c.New != nil {
		return c.New.Key
	}
	return c.Old.Key
}

// look tells the child of key to look, making or ending it as its object comes or goes.
func (f *family) look(ctx actor.Context, key api.Key) {
	c := f.children[key]
	if _, ok := f.config.Deps.Hub.Get(key); !ok {
		f.end(ctx, key)
		return
	}
	switch {
	case c == nil:
		f.spawn(ctx, key)
	case !c.ending:
		ctx.Send(c.pid, reconcile.Look{})
	}
}

func (f *family) spawn(ctx actor.Context, key api.Key) {
	name := key.Name
	if key.Namespace != "" {
		name = key.Namespace + "." + key.Name
	}
	pid, err := supervise.Spawn(ctx, supervise.Leaf(name, f.config.Why, f.config.Child(key)))
	if err != nil {
		panic(fmt.Errorf("start the actor of %s: %w", key, err))
	}
	f.children[key], f.keys[pid.Id] = &child{pid: pid}, key
}

func (f *family) end(ctx actor.Context, key api.Key) {
	if c := f.children[key]; c != nil && !c.ending {
		c.ending = true
		ctx.Stop(c.pid)
	}
}

// ended forgets a child that has stopped; one whose object came back meanwhile is made anew.
func (f *family) ended(ctx actor.Context, pid *actor.PID) {
	key, ok := f.keys[pid.Id]
	if !ok || f.stopping {
		return
	}
	delete(f.keys, pid.Id)
	delete(f.children, key)
	if _, ok := f.config.Deps.Hub.Get(key); ok {
		f.spawn(ctx, key)
	}
}
