package model_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/model"
	"github.com/troupe-sh/troupe/cluster/journal/suite"
)

func TestSuite(t *testing.T) {
	for _, fate := range []model.Fate{model.Gone, model.Committed, model.Late} {
		t.Run(fmt.Sprint(fate), func(t *testing.T) {
			suite.Run(t, func(t *testing.T) *suite.Subject {
				j := model.New(model.Options{Decode: suite.Decode})
				s := &suite.Subject{Journal: j}
				s.LoseNext = func() { j.Lose(fate) }
				s.SetFull = func(full bool) { j.SetFull(full) }
				s.Elect = func() {
					if err := j.Elect(); err != nil {
						t.Fatal(err)
					}
				}
				s.Reopen = func() journal.Journal {
					next, err := j.Reopen()
					if err != nil {
						t.Fatal(err)
					}
					j = next
					return j
				}
				return s
			})
		})
	}
}

// timers is a clock that runs on demand.
type timers struct{ due []func() }

func (c *timers) after(_ time.Duration, f func()) { c.due = append(c.due, f) }

func (c *timers) run() {
	due := c.due
	c.due = nil
	for _, f := range due {
		f()
	}
}

// The same seed is the same history, and what was acknowledged is never lost.
func TestFaultsBySeed(t *testing.T) {
	run := func(seed uint64) string {
		clock := &timers{}
		j := model.New(model.Options{
			Decode: suite.Decode, After: clock.after, Seed: seed,
			Faults: model.Faults{Lose: 0.2, NoRoom: 0.1, Away: time.Second},
		})
		var epoch journal.Epoch
		trace := ""
		hear := func(l journal.Leadership) {
			epoch = l.Epoch
			trace += fmt.Sprintln(l)
		}
		j.Leadership(hear)
		var acknowledged []string
		for i := range 200 {
			name := fmt.Sprint(i)
			err := suite.Propose(t, j, epoch, suite.Set(name, "x"))
			trace += fmt.Sprintln(i, err)
			switch {
			case err == nil:
				acknowledged = append(acknowledged, name)
			case errors.Is(err, journal.ErrUnknownOutcome), errors.Is(err, journal.ErrNoRoom), errors.Is(err, journal.ErrNotLeader):
			default:
				t.Fatal(err)
			}
			if i%3 == 0 {
				clock.run()
			}
			if i%50 == 49 {
				next, err := j.Reopen()
				if err != nil {
					t.Fatal(err)
				}
				j = next
				j.Leadership(hear)
			}
		}
		for _, name := range acknowledged {
			if _, ok := j.Hub().Get(suite.Pod(name)); !ok {
				t.Errorf("seed %d: %s was acknowledged and is lost", seed, name)
			}
		}
		for _, r := range j.Hub().List("pods", "") {
			trace += fmt.Sprintln(r.Key, r.Seq)
		}
		return trace
	}
	for seed := range uint64(50) {
		first, second := run(seed), run(seed)
		if first != second {
			t.Errorf("seed %d: two histories", seed)
		}
	}
}
