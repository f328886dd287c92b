// Package actors declares every actor of an agent: two trees, each one value.
package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/containerworker"
	"github.com/troupe-sh/troupe/actors/family"
	"github.com/troupe-sh/troupe/actors/garbage"
	"github.com/troupe-sh/troupe/actors/images"
	"github.com/troupe-sh/troupe/actors/machine"
	"github.com/troupe-sh/troupe/actors/namespaces"
	"github.com/troupe-sh/troupe/actors/nodes"
	"github.com/troupe-sh/troupe/actors/pods"
	"github.com/troupe-sh/troupe/actors/podworker"
	"github.com/troupe-sh/troupe/actors/probe"
	"github.com/troupe-sh/troupe/actors/reconcile"
	"github.com/troupe-sh/troupe/actors/registry"
	"github.com/troupe-sh/troupe/actors/replicationcontrollers"
	"github.com/troupe-sh/troupe/actors/scheduler"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/actors/usage"
	"github.com/troupe-sh/troupe/actors/volumes"
	"github.com/troupe-sh/troupe/actors/workers"
	"github.com/troupe-sh/troupe/api"
)

var (
	few  = supervise.Budget{Restarts: 5, Within: time.Minute}
	many = supervise.Budget{Restarts: 5, Within: 10 * time.Minute} // of each child of a family
)

// Control is the tree that decides. It runs on the journal's leader; the
// registry comes first, since all that stand behind it write through it.
func Control(d ControlDeps) supervise.Node {
	hub := d.Journal.Hub()
	shell := d.shell()
	return supervise.Group("control", supervise.RestForOne, few,
		supervise.Leaf("registry", "orders all writes", registry.New(d.registry())),
		supervise.Group("controllers", supervise.OneForOne, few,
			supervise.Leaf("initial", "makes the namespaces that every cluster has", reconcile.New(shell, namespaces.Initial(hub), "namespaces")),
			supervise.Leaf("scheduler", "places pending pods", reconcile.New(shell, scheduler.New(hub), scheduler.Resources...)),
			d.family("nodes", "taints by condition", nil, nil, func(key api.Key) actor.Producer {
				return reconcile.New(shell, nodes.New(hub, key))
			}),
			d.family("pods", "a pod's life, start to end", []string{"nodes"}, pods.Route(hub), func(key api.Key) actor.Producer {
				return reconcile.New(shell, pods.New(hub, key))
			}),
			d.family("replicationcontrollers", "keeps N pods", []string{"pods"}, replicationcontrollers.Route(hub), func(key api.Key) actor.Producer {
				return reconcile.New(shell, replicationcontrollers.New(hub, key))
			}),
			d.family("namespaces", "empties it, then lets it go", namespaces.Also(), namespaces.Route(hub), func(key api.Key) actor.Producer {
				return reconcile.New(shell, namespaces.New(hub, key))
			}),
			supervise.Leaf("garbage", "owner gone, children gone", reconcile.New(shell, garbage.New(hub), garbage.Resources()...)),
		),
	)
}

// Machine is the tree that does: it drives this machine.
func Machine(d MachineDeps) supervise.Node {
	return supervise.Group("node", supervise.OneForOne, few,
		supervise.Leaf("images", "pulls what containers need", images.New(d.images())),
		supervise.Leaf("volumes", "what pods mount", volumes.New(volumes.Config{Kernel: d.Kernel, Log: d.Log, Port: d.Volumes})),
		supervise.Leaf("machine", "the Node object: what this machine is and how it fares", machine.New(d.machine())),
		supervise.Leaf("usage", "what this machine and its pods use", usage.New(usage.Config{Kernel: d.Kernel, Log: d.Log, Runtime: d.Runtime, Host: d.Host})),
		supervise.Family("pods", "a worker for each pod bound here", many, workers.New(d.workers(podworker.New(d.podWorker(containerworker.New(d.containerWorker()), probe.New(d.probe())))))),
	)
}

func (d ControlDeps) family(resource, why string, also []string, route family.Route, child func(api.Key) actor.Producer) supervise.Node {
	return supervise.Family(resource, "an actor for each: "+why, many, family.New(family.Config{
		Deps: d.shell(), Resource: resource, Why: why, Also: also, Route: route, Child: child,
	}))
}
