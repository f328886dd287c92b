package supervise_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/supervise"
)

// BenchmarkActor makes b.N idle actors in a family and says what one weighs.
func BenchmarkActor(b *testing.B) {
	system := supervise.NewSystem(nil)
	defer system.Shutdown()
	made := make(chan struct{})
	idle := func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) }
	parent := func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if n, ok := ctx.Message().(int); ok {
				for i := range n {
					if _, err := supervise.Spawn(ctx, supervise.Leaf(fmt.Sprintf("a%d", i), "", idle)); err != nil {
						panic(err)
					}
				}
				close(made)
			}
		})
	}
	tree, err := supervise.Start(system, supervise.Group("node", supervise.OneForOne, minute,
		supervise.Family("pods", "", minute, parent)), supervise.Options{})
	if err != nil {
		b.Fatal(err)
	}
	<-tree.Ready()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	system.Root.Send(system.NewLocalPID("node/pods"), b.N)
	<-made
	b.StopTimer()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(b.N), "heap-B/actor")
	tree.Stop()
}

// BenchmarkMessage sends b.N messages through everything that stands before an actor.
func BenchmarkMessage(b *testing.B) {
	system := supervise.NewSystem(nil)
	defer system.Shutdown()
	done := make(chan struct{})
	counter := func() actor.Actor {
		n := 0
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if _, ok := ctx.Message().(string); ok {
				if n++; n == b.N {
					close(done)
				}
			}
		})
	}
	tree, err := supervise.Start(system, supervise.Group("node", supervise.OneForOne, minute,
		supervise.Leaf("x", "", counter)), supervise.Options{})
	if err != nil {
		b.Fatal(err)
	}
	<-tree.Ready()
	pid := system.NewLocalPID("node/x")
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		system.Root.Send(pid, "m")
	}
	<-done
	b.StopTimer()
	tree.Stop()
}
