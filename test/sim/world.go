// Package sim runs whole agents, several if need be, in one goroutine and in
// virtual time. One seed decides every order, delay and loss, so that one seed
// is one trace, and a failure is one line to repeat it by.
//
// The kernel is here: World is time and chance, Host a machine whose actors run
// on them, Run the loop over seeds. Scenarios stand beside it, one file each,
// named after what they break (agentkilled_test.go); kernel_test.go shows the
// smallest.
package sim

import (
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/types"
)

// Beginning is when every world begins.
var Beginning = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// StepsMax ends a world that never comes to rest.
const StepsMax = 5_000_000

// World is a seeded schedule of everything that happens on its hosts. Nothing
// of it may be used outside the goroutine that made it.
type World struct {
	Wire Wire // between hosts

	seed  uint64
	rand  *rand.Rand
	now   time.Duration // since Beginning
	queue queue
	age   uint64
	steps int
	check []func() error
	wrong error // what Failf or an invariant said first
	hosts map[string]*Host
	cut   map[[2]string]bool

	digest hash.Hash64
	recent []string
	loud   bool // the trace goes to standard error too
}

// Wire is what befalls messages between hosts.
type Wire struct {
	Min, Max time.Duration // how long one takes
	Loss     float64       // the share that is lost, from 0 to 1
}

// New returns a world in which seed decides.
func New(seed uint64) *World {
	return &World{
		Wire: Wire{Min: 100 * time.Microsecond, Max: 20 * time.Millisecond, Loss: 0.02},
		seed: seed, rand: rand.New(rand.NewPCG(seed, 0x7472_6f75_7065)),
		hosts: map[string]*Host{}, cut: map[[2]string]bool{}, digest: fnv.New64a(),
	}
}

// Seed is what the world was made with.
func (w *World) Seed() uint64 { return w.seed }

// Rand is the world's only chance. Fakes draw from it too.
func (w *World) Rand() *rand.Rand { return w.rand }

// Now is the virtual time of day.
func (w *World) Now() time.Time { return Beginning.Add(w.now) }

// Steps is how much has happened.
func (w *World) Steps() int { return w.steps }

// AfterFunc calls f once d has passed, unless stop is called before. It goes on
// when hosts crash: what an agent sets goes by its Kernel.
func (w *World) AfterFunc(d time.Duration, f func()) (stop func()) { return w.after(d, nil, f) }

// NewUID is a random UUID of version 4.
func (w *World) NewUID() types.UID {
	var u uuid.UUID
	binary.LittleEndian.PutUint64(u[:8], w.rand.Uint64())
	binary.LittleEndian.PutUint64(u[8:], w.rand.Uint64())
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return types.UID(u.String())
}

// Check calls invariant after every step; an error is the end of the world.
func (w *World) Check(invariant func() error) { w.check = append(w.check, invariant) }

// Note adds a line to the trace.
func (w *World) Note(format string, args ...any) { w.trace(fmt.Sprintf(format, args...)) }

// Digest stands for all of the trace.
func (w *World) Digest() uint64 { return w.digest.Sum64() }

// Recent is the end of the trace.
func (w *World) Recent() []string { return w.recent[max(0, len(w.recent)-recentMax):] }

const recentMax = 200

func (w *World) trace(line string) {
	line = fmt.Sprintf("%12s %s\n", w.now, line)
	_, _ = io.WriteString(w.digest, line) // a hash takes everything
	if w.loud {
		_, _ = io.WriteString(os.Stderr, line)
	}
	if len(w.recent) >= 2*recentMax {
		w.recent = append(w.recent[:0], w.recent[recentMax:]...)
	}
	w.recent = append(w.recent, line)
}

// Failf ends the world: the seed has shown an error. An actor or a fake may
// call it too.
func (w *World) Failf(format string, args ...any) {
	if w.wrong == nil {
		w.wrong = fmt.Errorf(format, args...)
	}
	panic(ended{})
}

// ended is what Failf panics with.
type ended struct{}

// Run lets d of virtual time pass.
func (w *World) Run(d time.Duration) { w.Until(d, func() bool { return false }) }

// Until lets time pass until done, or until limit has passed: then it returns false.
func (w *World) Until(limit time.Duration, done func() bool) bool {
	for end := w.now + limit; ; {
		if done() {
			return true
		}
		next := w.queue.peek()
		if next == nil || next.at > end {
			w.now = end
			return done()
		}
		w.queue.pop()
		if next.run == nil || next.life.over() {
			continue
		}
		w.now = next.at
		run := next.run
		next.run = nil
		run()
		if w.wrong != nil {
			panic(ended{}) // said in an actor, whose supervisor saw a failure like any other
		}
		if w.steps++; w.steps >= StepsMax {
			w.Failf("%d steps and no rest", w.steps)
		}
		for _, invariant := range w.check {
			if err := invariant(); err != nil {
				w.Failf("%w", err)
			}
		}
	}
}

// Cut drops all messages between two hosts from now on, or no longer.
func (w *World) Cut(a, b string, cut bool) {
	w.Note("cut %s %s %t", a, b, cut)
	w.cut[[2]string{a, b}], w.cut[[2]string{b, a}] = cut, cut
}

// after queues run, for one life of a host or, with nil, whatever happens to hosts.
func (w *World) after(d time.Duration, l *life, run func()) (stop func()) {
	w.age++
	// Among events of one instant chance decides, not age: nobody may rely on that order.
	e := &event{at: w.now + max(d, 0), tie: w.rand.Uint32(), age: w.age, life: l, run: run}
	w.queue.push(e)
	return func() { e.run = nil }
}

// Delays, drawn from chance: short ones as a rule, now and then a long one, for
// a stall is what brings out what nobody thought of.
func (w *World) delay(usual, rare, never time.Duration) time.Duration {
	switch n := w.rand.IntN(1000); {
	case n == 0:
		return w.between(time.Microsecond, never)
	case n < 50:
		return w.between(time.Microsecond, rare)
	default:
		return w.between(time.Microsecond, usual)
	}
}

func (w *World) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(w.rand.Int64N(int64(high-low)))
}
