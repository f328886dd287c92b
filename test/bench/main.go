// Command bench prints the figures of DESIGN 12, each beside its limit in the
// same run: containerd driven by hand, the disk's fsync rate. Machines differ, so
// it is the ratios that count. It needs root and what "make build images" builds.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/cli-runtime/pkg/printers"
)

func main() {
	only := flag.String("only", "", "measure only what has these letters in its name")
	flag.Parse()
	b := &bench{only: *only}
	ok := b.run()
	b.print()
	if !ok {
		os.Exit(1)
	}
}

// measures are all that is measured, in the order of the table.
var measures = []struct {
	name string
	f    func(*bench)
}{
	{"pods", pods},
	{"start", startToReady},
	{"writes", writes},
	{"idle", idle},
}

// figure is one line of the table.
type figure struct {
	what, ours, beside, ratio, limit string
	missed                           bool
}

// bench collects figures. It stands in for a test in the lab.
type bench struct {
	only     string
	figures  []figure
	cleanups []func()
	failed   bool
}

// fatal unwinds to run.
type fatal struct{}

func (b *bench) Helper()                           {}
func (b *bench) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (b *bench) Failed() bool                      { return b.failed }
func (b *bench) Cleanup(f func())                  { b.cleanups = append(b.cleanups, f) }
func (b *bench) Errorf(format string, args ...any) { b.failed = true; b.Logf(format, args...) }
func (b *bench) Fatalf(format string, args ...any) {
	b.Errorf(format, args...)
	panic(fatal{})
}

// run measures, and says whether all could be measured.
func (b *bench) run() bool {
	for _, m := range measures {
		if strings.Contains(m.name, b.only) {
			b.Logf("measuring %s", m.name)
			b.guarded(func() { m.f(b) })
			for _, f := range slices.Backward(b.cleanups) {
				b.guarded(f)
			}
			b.cleanups = nil
		}
	}
	return !b.failed
}

func (b *bench) guarded(f func()) {
	defer func() {
		if p := recover(); p != nil && p != (fatal{}) {
			panic(p)
		}
	}()
	f()
}

// ratio adds a figure that has to stay below limit × what stands beside it.
func (b *bench) ratio(what string, ours, beside time.Duration, limit float64) {
	r := float64(ours) / float64(beside)
	b.figures = append(b.figures, figure{
		what: what, ours: round(ours), beside: "raw " + round(beside),
		ratio: fmt.Sprintf("%.2f", r), limit: fmt.Sprintf("≤ %.2f × raw", limit), missed: r > limit,
	})
}

// shown adds a figure that has no limit.
func (b *bench) shown(what string, ours, beside time.Duration) {
	b.figures = append(b.figures, figure{what: what, ours: round(ours), beside: "raw " + round(beside), ratio: fmt.Sprintf("%.2f", float64(ours)/float64(beside))})
}

func (b *bench) add(f figure) { b.figures = append(b.figures, f) }

func (b *bench) print() {
	w := printers.GetNewTabWriter(os.Stdout)
	fmt.Fprintln(w, "WHAT\tTROUPE\tBESIDE IT\tRATIO\tTO REACH\t")
	for _, f := range b.figures {
		verdict := ""
		switch {
		case f.missed:
			verdict = "missed"
		case f.limit != "":
			verdict = "reached"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.what, f.ours, f.beside, f.ratio, f.limit, verdict)
	}
	w.Flush()
}

func round(d time.Duration) string {
	if d > 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

// percentile of durations, by rank.
func percentile(all []time.Duration, p int) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[min(len(all)-1, len(all)*p/100)]
}
