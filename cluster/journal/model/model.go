// Package model is the journal in memory, for the simulation and for tests of
// actors: one member, no disk, no goroutine, and faults on demand or by seed.
// What it keeps goes through the same encodings as on disk.
package model

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/troupe-sh/troupe/cluster/journal"
)

// Options says how a Journal behaves.
type Options struct {
	Decode journal.Decoder
	// After runs f once d of virtual time has passed, never at once. Without
	// it, a lost leadership comes back by Elect alone.
	After func(d time.Duration, f func())
	// Seed and Faults decide what befalls each proposal.
	Seed   uint64
	Faults Faults
}

// Faults are the shares of proposals that fail, each from 0 to 1.
type Faults struct {
	// Lose: leadership is lost with the batch in flight. A third of these
	// batches is committed, a third is committed when leadership returns, and
	// a third is gone.
	Lose float64
	// NoRoom: the batch is refused as on a full disk, unless it only deletes.
	NoRoom float64
	// Away is the longest time without a leader.
	Away time.Duration
}

// Fate is what becomes of a batch whose proposer hears ErrUnknownOutcome.
type Fate uint8

// The fates.
const (
	Gone      Fate = iota // never written
	Committed             // written and applied
	Late                  // written, and applied when the next reign begins
)

// Journal implements [journal.Journal].
type Journal struct {
	options Options

	mu      sync.Mutex
	random  *rand.Rand
	hub     *journal.Hub
	term    uint64
	leads   bool
	full    bool
	closed  bool
	next    *Fate          // of the next proposal
	late    *journal.Entry // to be applied when the next reign begins
	heard   []func(journal.Leadership)
	held    chan struct{} // closed when proposals go on; nil: they do
	notices []func()      // to be given in order, by whoever does it first
	giving  bool
}

var _ journal.Journal = (*Journal)(nil)

// New returns an empty journal that leads in term 1.
func New(o Options) *Journal {
	return open(o, journal.NewState(o.Decode), 1, rand.New(rand.NewPCG(o.Seed, 0)))
}

func open(o Options, s *journal.State, term uint64, random *rand.Rand) *Journal {
	return &Journal{options: o, random: random, hub: journal.NewHub(s), term: term, leads: true}
}

// Reopen is what the member is after a restart of its agent: what was durable,
// in a new hub, leading in the next term. The old one is closed.
func (j *Journal) Reopen() (*Journal, error) {
	j.mu.Lock()
	if err := j.applyLate(); err != nil {
		j.mu.Unlock()
		return nil, err
	}
	j.leads, j.closed, j.heard = false, true, nil
	var disk bytes.Buffer
	err := j.hub.Snapshot().Encode(&disk)
	term := j.term
	j.mu.Unlock()
	if err != nil {
		return nil, err
	}
	s, err := journal.DecodeState(&disk, j.options.Decode)
	if err != nil {
		return nil, err
	}
	return open(j.options, s, term+1, j.random), nil
}

// Hold makes proposals wait until release is called. It is for tests whose
// actors run on goroutines: a simulation would stand still.
func (j *Journal) Hold() (release func()) {
	held := make(chan struct{})
	j.mu.Lock()
	j.held = held
	j.mu.Unlock()
	return func() {
		j.mu.Lock()
		j.held = nil
		j.mu.Unlock()
		close(held)
	}
}

// Propose implements [journal.Journal]. It returns at once, unless held.
func (j *Journal) Propose(ctx context.Context, e journal.Entry) error {
	j.mu.Lock()
	held := j.held
	j.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err() // not written
		}
	}
	j.mu.Lock()
	err := j.propose(e)
	j.mu.Unlock()
	j.give()
	return err
}

func (j *Journal) propose(e journal.Entry) error {
	if !j.leads {
		return journal.ErrNotLeader
	}
	if (j.full || j.chance(j.options.Faults.NoRoom)) && !e.Frees() {
		return fmt.Errorf("%w: make room, or delete something", journal.ErrNoRoom)
	}
	data, err := journal.EncodeEntry(e)
	if err != nil {
		return err
	}
	if e, err = journal.DecodeEntry(data); err != nil {
		return err
	}
	fate, lost := j.draw()
	if !lost {
		return j.apply(e)
	}
	switch fate {
	case Committed:
		err = j.apply(e)
	case Late:
		j.late = &e
	}
	if err != nil {
		return err
	}
	j.depose()
	return journal.ErrUnknownOutcome
}

// apply publishes the state after e. The hub's wakes may read, but not propose.
func (j *Journal) apply(e journal.Entry) error {
	s, err := j.hub.Snapshot().Apply(j.term, e)
	if err != nil {
		return err
	}
	j.hub.Publish(s)
	return nil
}

// draw decides whether leadership is lost now, and what then becomes of the batch.
func (j *Journal) draw() (Fate, bool) {
	if next := j.next; next != nil {
		j.next = nil
		return *next, true
	}
	if !j.chance(j.options.Faults.Lose) {
		return 0, false
	}
	return Fate(j.random.IntN(3)), true
}

func (j *Journal) chance(share float64) bool { return share > 0 && j.random.Float64() < share }

// Lose makes the next proposal lose leadership while it is in flight.
func (j *Journal) Lose(fate Fate) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.next = &fate
}

// Depose takes leadership away, with nothing in flight.
func (j *Journal) Depose() {
	j.mu.Lock()
	j.depose()
	j.mu.Unlock()
	j.give()
}

func (j *Journal) depose() {
	if !j.leads {
		return
	}
	j.leads = false
	j.announce()
	if j.options.After == nil {
		return
	}
	away := time.Duration(0)
	if longest := j.options.Faults.Away; longest > 0 {
		away = time.Duration(j.random.Int64N(int64(longest))) + 1
	}
	term := j.term
	j.options.After(away, func() { j.elect(term) })
}

// Elect gives leadership back, in a higher term.
func (j *Journal) Elect() error {
	j.mu.Lock()
	term := j.term
	j.mu.Unlock()
	return j.elect(term)
}

// elect ends the reign of term, unless another did.
func (j *Journal) elect(term uint64) error {
	j.mu.Lock()
	if j.closed || j.leads || j.term != term {
		j.mu.Unlock()
		return nil
	}
	err := j.applyLate()
	j.term++
	j.leads = true
	j.announce()
	j.mu.Unlock()
	j.give()
	return err
}

func (j *Journal) applyLate() error {
	e := j.late
	if e == nil {
		return nil
	}
	j.late = nil
	return j.apply(*e)
}

// SetFull fills the disk, or makes room again.
func (j *Journal) SetFull(full bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.full = full
}

// SetFaults changes the shares of failing proposals.
func (j *Journal) SetFaults(f Faults) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.options.Faults = f
}

// Hub implements [journal.Journal].
func (j *Journal) Hub() *journal.Hub { return j.hub }

// Leadership implements [journal.Journal]. It calls f before it returns, and
// later from whatever changes leadership.
func (j *Journal) Leadership(f func(journal.Leadership)) {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return
	}
	j.heard = append(j.heard, f)
	now := j.leadership()
	j.notices = append(j.notices, func() { f(now) })
	j.mu.Unlock()
	j.give()
}

func (j *Journal) leadership() journal.Leadership {
	if !j.leads {
		return journal.Leadership{}
	}
	return journal.Leadership{Leader: true, Epoch: journal.Epoch{
		Incarnation: j.hub.Snapshot().Incarnation(), Term: j.term,
	}}
}

func (j *Journal) announce() {
	now := j.leadership()
	for _, f := range j.heard {
		j.notices = append(j.notices, func() { f(now) })
	}
}

// give runs the notices outside the lock, in their order.
func (j *Journal) give() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.giving {
		return // whoever gives now gives these too
	}
	j.giving = true
	for len(j.notices) > 0 {
		notice := j.notices[0]
		j.notices = j.notices[1:]
		j.mu.Unlock()
		notice()
		j.mu.Lock()
	}
	j.giving = false
}

// Barrier implements [journal.Journal].
func (j *Journal) Barrier(ctx context.Context) error { return j.VerifyLeader(ctx) }

// VerifyLeader implements [journal.Journal].
func (j *Journal) VerifyLeader(context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.leads {
		return journal.ErrNotLeader
	}
	return nil
}

// Close implements [journal.Journal].
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.leads, j.closed, j.heard = false, true, nil
	return nil
}
