package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/registry"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/raftlog"
	"github.com/troupe-sh/troupe/test/lab"
)

// How writes are measured.
const (
	callers   = 16
	writeTime = 3 * time.Second
)

// writes measures durable writes beside what the disk can do.
func writes(b *bench) {
	syncs := fsyncRate(b)
	ours := registryRate(b)
	b.add(figure{
		what: fmt.Sprintf("durable writes, %d callers, by the registry", callers), ours: fmt.Sprintf("%.0f/s", ours),
		beside: fmt.Sprintf("fsync %.0f/s", syncs), ratio: fmt.Sprintf("%.2f", ours/syncs), limit: "≥ 10000/s", missed: ours < 10_000,
	})
	rest := clientRate(b)
	b.add(figure{
		what: fmt.Sprintf("durable writes, %d callers, over REST", callers), ours: fmt.Sprintf("%.0f/s", rest),
		beside: "Kubernetes 606/s", ratio: fmt.Sprintf("%.2f", rest/606),
	})
}

// fsyncRate is how often a second the disk makes 4 KiB durable.
func fsyncRate(b *bench) float64 {
	dir, err := os.MkdirTemp("", "fsync")
	b.must(err)
	defer os.RemoveAll(dir)
	f, err := os.Create(filepath.Join(dir, "f"))
	b.must(err)
	defer f.Close()
	block := make([]byte, 4096)
	n, from := 0, time.Now()
	for time.Since(from) < writeTime {
		_, err := f.WriteAt(block, int64(n%1024)*4096)
		b.must(err)
		b.must(f.Sync())
		n++
	}
	return float64(n) / time.Since(from).Seconds()
}

// rate is how often a second the callers together get f done.
func rate(b *bench, f func(caller, n int) error) float64 {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var g sync.WaitGroup
	from := time.Now()
	for c := range callers {
		g.Go(func() {
			for n := 0; time.Since(from) < writeTime && failed.Load() == nil; n++ {
				if err := f(c, n); err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	g.Wait()
	if err := failed.Load(); err != nil {
		b.Fatalf("write: %v", *err)
	}
	return float64(done.Load()) / time.Since(from).Seconds()
}

// registryRate asks a registry on a journal on disk, as the door does.
func registryRate(b *bench) float64 {
	dir, err := os.MkdirTemp("", "journal")
	b.must(err)
	defer os.RemoveAll(dir)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	j, err := raftlog.Open(raftlog.Options{Dir: dir, Log: log, Decode: api.Decode})
	b.must(err)
	defer j.Close()
	reigns := make(chan journal.Leadership, 8)
	j.Leadership(func(l journal.Leadership) { reigns <- l })
	var reign journal.Leadership
	for !reign.Leader {
		reign = <-reigns
	}
	system := supervise.NewSystem(log)
	defer system.Shutdown()
	tree, err := supervise.Start(system, supervise.Group("control", supervise.RestForOne, supervise.Budget{Restarts: 1, Within: time.Minute},
		supervise.Leaf("registry", "orders all writes", registry.New(registry.Config{
			Journal: j, Epoch: reign.Epoch, Seal: func(_ api.Key, value []byte) []byte { return value },
			PodCIDR: netip.MustParsePrefix("10.244.0.0/16"), Kernel: mailbox.Real(), Log: log,
		}))), supervise.Options{Log: log})
	b.must(err)
	defer tree.Stop()
	target := system.NewLocalPID("control/registry")
	create := func(o api.Object) error {
		o, err := api.Prepare(o)
		if err != nil {
			return err
		}
		answer, err := system.Root.RequestFuture(target, &command.Commit{
			ID: string(uuid.NewUUID()), Actor: "bench", Changes: []command.Change{{Op: command.Create, Key: api.KeyOf(o), Object: o}},
		}, 10*time.Second).Result()
		if err != nil {
			return err
		}
		done := answer.(*command.Committed)
		if done.Err != nil {
			return done.Err
		}
		return done.Results[0].Err
	}
	lab.Eventually(b, patience, "the registry takes writes", func() error {
		return create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceDefault}})
	})
	return rate(b, func(caller, n int) error {
		return create(&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: fmt.Sprintf("c%d-%d", caller, n)},
			Data:       map[string]string{"key": "value"},
		})
	})
}

// clientRate asks an agent with Kubernetes' own client.
func clientRate(b *bench) float64 {
	h := lab.Start(b, lab.Options{Containerd: lab.StartContainerd(b)})
	config := h.Config()
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	b.must(err)
	return rate(b, func(caller, n int) error {
		_, err := client.CoreV1().ConfigMaps("default").Create(context.Background(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "c" + strconv.Itoa(caller) + "-" + strconv.Itoa(n)},
			Data:       map[string]string{"key": "value"},
		}, metav1.CreateOptions{})
		return err
	})
}
