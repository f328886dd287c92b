package sim

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	oneSeed   = flag.Uint64("seed", 0, "run the simulation's scenarios with this seed alone, and print the trace's end")
	allTrace  = flag.Bool("trace", false, "with -seed, print the whole trace")
	fromSeed  = flag.Uint64("from", 1, "the first of -seeds")
	manySeeds = flag.Uint64("seeds", 100, "run the simulation's scenarios with this number of seeds")
)

// Run runs scenario in a world of its own for each seed. A failing seed is
// reported with the line that repeats it. Some seeds run twice: an actor whose
// trace differs then looks at something else than its messages and its Work.
func Run(t *testing.T, scenario func(w *World)) {
	t.Helper()
	first, last := *fromSeed, *fromSeed+*manySeeds-1
	if *oneSeed != 0 {
		first, last = *oneSeed, *oneSeed
	}
	var next, failed atomic.Uint64
	next.Store(first)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed := next.Add(1) - 1; seed <= last && failed.Load() < failuresMax; seed = next.Add(1) - 1 {
				if report := try(t.Name(), seed, scenario, *oneSeed != 0 || seed%twiceEach == 0); report != "" {
					failed.Add(1)
					t.Error(report)
				}
			}
		})
	}
	workers.Wait()
}

const (
	failuresMax = 3
	twiceEach   = 16
)

// try runs one seed and returns what is wrong with it.
func try(name string, seed uint64, scenario func(*World), twice bool) (report string) {
	w, err := once(seed, scenario)
	if err == nil && twice {
		again, _ := once(seed, scenario)
		if w.Digest() != again.Digest() {
			err = fmt.Errorf("two runs differ: %d and %d steps, trace %x and %x", w.Steps(), again.Steps(), w.Digest(), again.Digest())
		}
	}
	if err == nil {
		return ""
	}
	return fmt.Sprintf("seed %d, %s after its beginning: %v\n\n    go test ./test/sim -run '^%s$' -seed %d\n\n%s",
		seed, w.now, err, name, seed, strings.Join(w.Recent(), ""))
}

func once(seed uint64, scenario func(*World)) (w *World, err error) {
	w = New(seed)
	w.loud = *allTrace && *oneSeed != 0
	defer func() {
		if r := recover(); r != nil && w.wrong == nil {
			w.wrong = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
		err = w.wrong
	}()
	scenario(w)
	return w, nil
}
