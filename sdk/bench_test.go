package sdk_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/sdk"
)

// Over the socket, with a journal in memory; client and agent share the cores.
func BenchmarkGet(b *testing.B) {
	s, c := start(b)
	s.Must(pod("a"))
	pods := sdk.For[*corev1.Pod](c).Namespace("default")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := pods.Get(b.Context(), "a", metav1.GetOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "gets/s")
}

func BenchmarkCreate(b *testing.B) {
	_, c := start(b)
	pods := sdk.For[*corev1.Pod](c).Namespace("default")
	p := pod("")
	p.GenerateName = "bench-"
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := pods.Create(b.Context(), p, metav1.CreateOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
}

// From a write's answer until the last of 200 caches has the object.
func BenchmarkCaches200(b *testing.B) {
	const caches = 200
	s, c := start(b)
	s.Must(configMap("a"))
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	ctx, cancel := context.WithCancel(b.Context())
	heard := make(chan struct{}, caches)
	var all sync.WaitGroup
	for range caches {
		// A connection has room for a hundred streams and more, but not for all.
		cache := sdk.NewCache(sdk.For[*corev1.ConfigMap](dial(b, s.Socket)), sdk.CacheOptions[*corev1.ConfigMap]{})
		all.Go(func() { _ = cache.Run(ctx) }) // until cancelled
		if err := cache.WaitSynced(ctx); err != nil {
			b.Fatal(err)
		}
		cache.OnChange(func(change sdk.Change[*corev1.ConfigMap]) {
			if change.Type == "MODIFIED" {
				heard <- struct{}{}
			}
		})
	}
	var worst, sum time.Duration
	turn := 0
	for b.Loop() {
		turn++
		set(b, maps, "a", fmt.Sprintf("turn %d", turn))
		at := time.Now()
		for range caches {
			<-heard
		}
		took := time.Since(at)
		worst, sum = max(worst, took), sum+took
	}
	b.ReportMetric(float64(worst.Microseconds())/1000, "ms-worst")
	b.ReportMetric(float64(sum.Microseconds())/1000/float64(turn), "ms-mean")
	b.ReportMetric(float64(caches*turn)/sum.Seconds(), "events/s")
	cancel()
	all.Wait()
}
