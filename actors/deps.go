package actors

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/containerworker"
	"github.com/troupe-sh/troupe/actors/images"
	"github.com/troupe-sh/troupe/actors/machine"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/podworker"
	"github.com/troupe-sh/troupe/actors/probe"
	"github.com/troupe-sh/troupe/actors/reconcile"
	"github.com/troupe-sh/troupe/actors/registry"
	"github.com/troupe-sh/troupe/actors/usage"
	"github.com/troupe-sh/troupe/actors/volumes"
	"github.com/troupe-sh/troupe/actors/workers"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Well-known actors, by their paths.
const (
	RegistryPath = "control/registry"
	ImagesPath   = "node/images"
	UsagePath    = "node/usage"
	volumesPath  = "node/volumes"
)

// ControlDeps is what the control tree works with.
type ControlDeps struct {
	System  *actor.ActorSystem
	Journal journal.Journal
	Epoch   journal.Epoch // the reign that this tree serves
	Seal    func(key api.Key, value []byte) []byte
	PodCIDR netip.Prefix // all pods of the cluster; each node gets a part
	Kernel  mailbox.Kernel
	Log     *slog.Logger
}

func (d ControlDeps) registry() registry.Config {
	return registry.Config{Journal: d.Journal, Epoch: d.Epoch, Seal: d.Seal, PodCIDR: d.PodCIDR, Kernel: d.Kernel, Log: d.Log}
}

func (d ControlDeps) shell() reconcile.Deps {
	return reconcile.Deps{Hub: d.Journal.Hub(), Registry: at(d.System, RegistryPath), Kernel: d.Kernel, Log: d.Log}
}

// MachineDeps is what the node tree works with.
type MachineDeps struct {
	System      *actor.ActorSystem
	Node        string
	Registry    func() *actor.PID // on the leader
	Feed        feed.Feed
	Runtime     container.Runtime
	Volumes     volumes.Port
	Probes      Probes
	Host        Host
	Disk        Disk
	Machine     pod.Machine
	ClusterCIDR netip.Prefix
	Version     string
	Backoff     time.Duration // before a container's second restart; 0: 10 s
	ImageGC     func() images.GC
	Kernel      mailbox.Kernel
	Log         *slog.Logger
}

// Host is the machine itself. runtime/host implements it.
type Host interface {
	machine.Host
	usage.Host
}

// Probes asks containers how they are, and does what their hooks say.
// runtime/probe implements it.
type Probes interface {
	probe.Port
	containerworker.Hooks
}

// Disk is what the node tree keeps in files. runtime/poddir implements it.
type Disk interface {
	workers.Disk
	podworker.Disk
	containerworker.Disk
}

func (d MachineDeps) images() images.Config {
	return images.Config{Kernel: d.Kernel, Log: d.Log, Runtime: d.Runtime, Feed: d.Feed, GC: d.ImageGC}
}

func (d MachineDeps) machine() machine.Config {
	return machine.Config{
		Kernel: d.Kernel, Log: d.Log, Node: d.Node, Registry: d.Registry, Feed: d.Feed, Runtime: d.Runtime, Host: d.Host,
		Version: d.Version, ClusterCIDR: d.ClusterCIDR,
	}
}

func (d MachineDeps) workers(worker actor.Producer) workers.Config {
	return workers.Config{
		Kernel: d.Kernel, Log: d.Log, Node: d.Node, Registry: d.Registry, Volumes: at(d.System, volumesPath),
		Feed: d.Feed, Runtime: d.Runtime, Disk: d.Disk, Worker: worker,
	}
}

func (d MachineDeps) podWorker(container, probe actor.Producer) podworker.Config {
	return podworker.Config{
		Kernel: d.Kernel, Log: d.Log, Runtime: d.Runtime, Disk: d.Disk, Volumes: at(d.System, volumesPath),
		Container: container, Probe: probe, Machine: d.Machine,
	}
}

func (d MachineDeps) containerWorker() containerworker.Config {
	return containerworker.Config{
		Kernel: d.Kernel, Log: d.Log, Runtime: d.Runtime, Disk: d.Disk, Hooks: d.Probes, Images: at(d.System, ImagesPath),
		Machine: d.Machine, Backoff: d.Backoff,
	}
}

func (d MachineDeps) probe() probe.Config {
	return probe.Config{Kernel: d.Kernel, Log: d.Log, Port: d.Probes}
}

// at names an actor of this system by its path.
func at(system *actor.ActorSystem, path string) func() *actor.PID {
	pid := system.NewLocalPID(path)
	return func() *actor.PID { return pid }
}
