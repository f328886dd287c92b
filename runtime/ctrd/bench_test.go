package ctrd_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"

	"github.com/troupe-sh/troupe/runtime/container"
)

// raw is containerd's own client in its plainest use.
type raw struct {
	client *client.Client
	image  client.Image
	ctx    context.Context
}

func newRaw(b *testing.B, m *machine) *raw {
	c, err := client.New(m.config.Address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	ctx := namespaces.WithNamespace(context.Background(), m.config.Namespace)
	img, err := c.GetImage(ctx, "docker.io/library/busybox:latest")
	if err != nil {
		b.Fatal(err)
	}
	return &raw{c, img, ctx}
}

func (r *raw) start(id string) error {
	c, err := r.client.NewContainer(r.ctx, id, client.WithNewSnapshot(id, r.image),
		client.WithNewSpec(oci.WithImageConfig(r.image), oci.WithProcessArgs("/bin/sleep", "1000")))
	if err != nil {
		return err
	}
	task, err := c.NewTask(r.ctx, cio.NullIO)
	if err != nil {
		return err
	}
	return task.Start(r.ctx)
}

func (r *raw) remove(id string) error {
	c, err := r.client.LoadContainer(r.ctx, id)
	if err != nil {
		return err
	}
	task, err := c.Task(r.ctx, nil)
	if err != nil {
		return err
	}
	gone, err := task.Wait(r.ctx)
	if err != nil {
		return err
	}
	if err := task.Kill(r.ctx, syscall.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	<-gone
	if _, err := task.Delete(r.ctx); err != nil {
		return err
	}
	return c.Delete(r.ctx, client.WithSnapshotCleanup)
}

func (m *machine) startPod(ctx context.Context, id string) error {
	if _, err := m.RunSandbox(ctx, box(id)); err != nil {
		return err
	}
	s := m.spec(id, id+"-c", "sleep 1000")
	s.Command = []string{"/bin/sleep", "1000"}
	s.Security = container.Security{MaskedPaths: true}
	if err := m.Create(ctx, s); err != nil {
		return err
	}
	return m.Start(ctx, s.ID)
}

// BenchmarkPod starts one pod, and one plain container beside it, in turn.
func BenchmarkPod(b *testing.B) {
	m := fresh(b)
	r := newRaw(b, m)
	var pods, raws, podEnds, rawEnds []time.Duration
	timed := func(to *[]time.Duration, f func() error) {
		t := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		*to = append(*to, time.Since(t))
	}
	var i int
	for b.Loop() {
		id := fmt.Sprint("b", i)
		i++
		timed(&raws, func() error { return r.start(id) })
		timed(&pods, func() error { return m.startPod(b.Context(), id+"p") })
		timed(&rawEnds, func() error { return r.remove(id) })
		timed(&podEnds, func() error { return m.RemoveSandbox(b.Context(), id+"p") })
	}
	b.ReportMetric(0, "ns/op")
	report(b, "start", pods, raws)
	report(b, "remove", podEnds, rawEnds)
}

func report(b *testing.B, what string, ours, raw []time.Duration) {
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2].Microseconds()) / 1000
	}
	b.ReportMetric(median(ours), "ms/"+what)
	b.ReportMetric(median(raw), "ms/raw-"+what)
	b.ReportMetric(median(ours)/median(raw), what+"/raw")
}

// BenchmarkPodsAtOnce starts 30 pods together, and 30 plain containers before them.
func BenchmarkPodsAtOnce(b *testing.B) {
	m := fresh(b)
	wide := container.Network{PodCIDR: netip.MustParsePrefix("10.88.0.0/16")} // addresses rest for a minute
	if err := m.Configure(b.Context(), wide); err != nil {
		b.Fatal(err)
	}
	r := newRaw(b, m)
	var pods, raws []time.Duration
	together := func(f func(i int) error) time.Duration {
		t := time.Now()
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				if err := f(i); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		return time.Since(t)
	}
	var n int
	for b.Loop() {
		n++
		raws = append(raws, together(func(i int) error { return r.start(fmt.Sprint("r", n, "-", i)) }))
		together(func(i int) error { return r.remove(fmt.Sprint("r", n, "-", i)) })
		pods = append(pods, together(func(i int) error { return m.startPod(b.Context(), fmt.Sprint("p", n, "-", i)) }))
		together(func(i int) error { return m.RemoveSandbox(b.Context(), fmt.Sprint("p", n, "-", i)) })
	}
	b.ReportMetric(0, "ns/op")
	report(b, "30-pods", pods, raws)
}
