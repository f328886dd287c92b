package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sync/errgroup"

	"github.com/troupe-sh/troupe/test/lab"
)

// raw is containerd driven by hand: what the same containers cost with nobody
// above them.
type raw struct {
	b      *bench
	ctx    context.Context
	client *containerd.Client
	image  containerd.Image
	n      int
}

const rawNamespace = "raw"

func newRaw(b *bench, c *lab.Containerd) *raw {
	client, err := containerd.New(c.Address)
	b.must(err)
	r := &raw{b: b, ctx: namespaces.WithNamespace(context.Background(), rawNamespace), client: client}
	f, err := os.Open(lab.Image(b, "troupe-test"))
	b.must(err)
	defer f.Close()
	images, err := client.Import(r.ctx, f)
	b.must(err)
	r.image = containerd.NewImage(client, images[0])
	b.must(r.image.Unpack(r.ctx, ""))
	return r
}

func (b *bench) must(err error) {
	if err != nil {
		b.Fatalf("%v", err)
	}
}

// container is one that runs.
type container struct {
	containerd.Container
	containerd.Task
}

// start makes a container and runs it.
func (r *raw) start(name string) (container, error) {
	c, err := r.client.NewContainer(r.ctx, name,
		containerd.WithNewSnapshot(name, r.image),
		containerd.WithNewSpec(oci.WithImageConfig(r.image), oci.WithProcessArgs("troupe-test", "signals")))
	if err != nil {
		return container{}, err
	}
	t, err := r.run(c)
	return container{c, t}, err
}

func (r *raw) run(c containerd.Container) (containerd.Task, error) {
	t, err := c.NewTask(r.ctx, cio.NullIO)
	if err != nil {
		return nil, err
	}
	return t, t.Start(r.ctx)
}

func (r *raw) name() string {
	r.n++
	return fmt.Sprintf("raw%d", r.n)
}

func (r *raw) remove(c container) error {
	if _, err := c.Task.Delete(r.ctx, containerd.WithProcessKill); err != nil {
		return err
	}
	return c.Container.Delete(r.ctx, containerd.WithSnapshotCleanup)
}

// one is how long each of n containers takes to start, one after the other.
func (r *raw) one(n int) []time.Duration {
	var took []time.Duration
	for range n {
		from := time.Now()
		c, err := r.start(r.name())
		r.b.must(err)
		took = append(took, time.Since(from))
		r.b.must(r.remove(c))
	}
	return took
}

// many is how long n containers take to start, all at once.
func (r *raw) many(n int) time.Duration {
	all := make([]container, n)
	var g errgroup.Group
	from := time.Now()
	for i := range all {
		name := r.name()
		g.Go(func() (err error) {
			all[i], err = r.start(name)
			return err
		})
	}
	r.b.must(g.Wait())
	took := time.Since(from)
	for _, c := range all {
		g.Go(func() error { return r.remove(c) })
	}
	r.b.must(g.Wait())
	return took
}

// again is how long a container that was killed takes to run again.
func (r *raw) again(n int) []time.Duration {
	c, err := r.start(r.name())
	r.b.must(err)
	var took []time.Duration
	for range n {
		exit, err := c.Task.Wait(r.ctx)
		r.b.must(err)
		from := time.Now()
		r.b.must(syscall.Kill(int(c.Task.Pid()), syscall.SIGKILL))
		<-exit
		_, err = c.Task.Delete(r.ctx)
		r.b.must(err)
		c.Task, err = r.run(c.Container)
		r.b.must(err)
		took = append(took, time.Since(from))
	}
	r.b.must(r.remove(c))
	return took
}

// close leaves nothing in containerd.
func (r *raw) close() {
	images, err := r.client.ListImages(r.ctx)
	r.b.must(err)
	for _, i := range images {
		r.b.must(r.client.ImageService().Delete(r.ctx, i.Name()))
	}
	lab.Eventually(r.b, 30*time.Second, "containerd lets go of the namespace", func() error {
		return r.client.NamespaceService().Delete(r.ctx, rawNamespace)
	})
	r.client.Close()
}
