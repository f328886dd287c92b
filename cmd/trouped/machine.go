package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors"
	"github.com/troupe-sh/troupe/actors/images"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/cmd/internal/build"
	"github.com/troupe-sh/troupe/cmd/internal/place"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/ctrd"
	"github.com/troupe-sh/troupe/runtime/host"
	"github.com/troupe-sh/troupe/runtime/keeper"
	"github.com/troupe-sh/troupe/runtime/pod"
	"github.com/troupe-sh/troupe/runtime/poddir"
	"github.com/troupe-sh/troupe/runtime/probe"
	"github.com/troupe-sh/troupe/runtime/volume"
)

const (
	// machineContainerd is where a machine's own containerd listens.
	machineContainerd = "/run/containerd/containerd.sock"
	dialWait          = 2 * time.Second
	startWait         = 30 * time.Second
	againAfter        = time.Second // a private containerd that did not start
)

// openRuntime starts or finds the keeper and containerd.
func (a *agent) openRuntime(ctx context.Context) (keep *keeper.Client, runtime *ctrd.Runtime, err error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	keeperPath, err := beside("troupe-keeper")
	if err != nil {
		return nil, nil, err
	}
	o := a.options
	address := o.Containerd
	// What runs already runs in the containerd of last time, and stays there:
	// in another one everything would be started a second time.
	last, known, err := o.Dirs().Read()
	if err != nil {
		return nil, nil, err
	}
	private := address == "" && !answers(machineContainerd)
	if address == "" && known {
		if private = last.PrivateContainerd; !private {
			address = last.Containerd
		}
	}
	network, err := place.Network()
	if err != nil {
		return nil, nil, err
	}
	switch {
	case private:
		daemon, err := ctrd.Private(ctx, a.private())
		if err != nil {
			return nil, nil, err
		}
		address = daemon.Address
		go a.superviseContainerd(daemon)
	case address == "":
		address = machineContainerd
	}
	err = o.Dirs().Write(place.Settings{
		Node: o.Name, RunDir: o.RunDir, Containerd: address, ContainerdNamespace: o.ContainerdNamespace,
		PrivateContainerd: private, CgroupParent: o.CgroupParent, PodCIDR: o.pods.String(),
		Network: network,
	})
	if err != nil {
		return nil, nil, err
	}
	keep, err = keeper.Start(ctx, keeper.Config{Path: keeperPath, RunDir: o.RunDir, DataDir: o.DataDir, Log: a.log})
	if err != nil {
		return nil, nil, err
	}
	runtime, err = ctrd.Connect(ctx, ctrd.Config{
		Address: address, Namespace: o.ContainerdNamespace, RunDir: o.RunDir, DataDir: o.DataDir,
		CgroupParent: o.CgroupParent, Logs: keep, KeeperPath: keeperPath, CertsDir: o.CertsDir, Log: a.log,
	})
	return keep, runtime, err
}

func (a *agent) private() ctrd.PrivateConfig {
	return ctrd.PrivateConfig{RunDir: a.options.RunDir, DataDir: a.options.DataDir, Log: a.log}
}

// superviseContainerd starts the private containerd again when it ends. It goes
// on until the process ends, which the daemon outlives.
func (a *agent) superviseContainerd(daemon *ctrd.Daemon) {
	for {
		if err := daemon.Wait(context.Background()); err != nil {
			a.log.Error("private containerd is no longer watched", "error", err)
			return
		}
		a.log.Warn("private containerd ended, started again")
		for {
			ctx, cancel := context.WithTimeout(context.Background(), startWait)
			again, err := ctrd.Private(ctx, a.private())
			cancel()
			if err == nil {
				daemon = again
				break
			}
			a.log.Error("private containerd does not start", "error", err)
			time.Sleep(againAfter)
		}
	}
}

// answers tells whether somebody listens on a unix socket.
func answers(socket string) bool {
	c, err := net.DialTimeout("unix", socket, dialWait)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// beside finds a program that stands beside this one.
func beside(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s must stand beside trouped: %w", name, err)
	}
	return path, nil
}

// startMachine starts the node tree.
func (a *agent) startMachine(ctx context.Context, runtime *ctrd.Runtime) error {
	machine := host.New(a.options.DataDir, netip.Addr{})
	facts, err := machine.Facts(ctx)
	if err != nil {
		return fmt.Errorf("look at this machine: %w", err)
	}
	dns, err := host.DNS()
	if err != nil {
		return err
	}
	a.dns.Store(&dns)
	a.setGC()
	_, allocatable := facts.Capacity()
	m := pod.Machine{
		Name: a.options.Name, Addrs: machine.Addrs, Memory: facts.Memory, Allocatable: allocatable, LogDir: poddir.LogDir(a.options.DataDir),
		DNS: func() container.DNS { return *a.dns.Load() },
	}
	disk := poddir.New(a.options.DataDir, a.log)
	registry := a.system.NewLocalPID(actors.RegistryPath)
	tree, err := supervise.Start(a.system, actors.Machine(actors.MachineDeps{
		System: a.system, Node: a.options.Name, Registry: func() *actor.PID { return registry },
		Feed: feed.FromHub(a.journal.Hub(), a.options.Name), Runtime: runtime, Volumes: volume.New(a.options.DataDir, m), Probes: probe.New(runtime),
		Host: machine, Disk: disk, ClusterCIDR: a.options.pods, Version: build.Kubernetes() + "+troupe",
		Backoff: a.options.RestartBackoff.Duration,
		ImageGC: func() images.GC { return *a.gc.Load() },
		Machine: m, Kernel: mailbox.Real(), Log: a.log,
	}), supervise.Options{Log: a.log, Fell: a.fall("node")})
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.node = tree
	a.mu.Unlock()
	return nil
}

// announcing tells the node tree of images that were imported.
type announcing struct {
	container.Runtime
	system *actor.ActorSystem
}

// Import implements [container.Runtime].
func (r announcing) Import(ctx context.Context, archive io.Reader) ([]container.Image, error) {
	images, err := r.Runtime.Import(ctx, archive)
	r.system.Root.Send(r.system.NewLocalPID(actors.ImagesPath), pod.ImagesLoaded{})
	return images, err
}

// pull has the node tree pull an image, once for all who want it.
func (a *agent) pull(ctx context.Context, name string, auth container.Auth, step func(container.Step)) (container.Image, error) {
	return pullImage(ctx, a.system.Root, a.system.NewLocalPID(actors.ImagesPath), pod.PullImage{Name: name, Auth: auth}, step)
}
