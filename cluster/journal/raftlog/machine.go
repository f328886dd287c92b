package raftlog

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/troupe-sh/troupe/cluster/journal"
)

// machine applies the log to the state. raft calls it in one goroutine.
type machine struct {
	decode journal.Decoder
	hub    *journal.Hub

	every  int64 // bytes of log between two snapshots
	logged int64
	ask    chan<- struct{}
}

var _ raft.FSM = (*machine)(nil)

// Apply implements [raft.FSM]. The result is nil or why the entry is refused.
func (m *machine) Apply(log *raft.Log) any {
	e, err := journal.DecodeEntry(log.Data)
	if err != nil {
		// Going on without it would make this replica another than the rest.
		panic(fmt.Errorf("journal: record %d of the log: %w", log.Index, err))
	}
	if m.logged += int64(len(log.Data)); m.logged >= m.every {
		m.logged = 0
		select {
		case m.ask <- struct{}{}:
		default:
		}
	}
	next, err := m.hub.Snapshot().Apply(log.Term, e)
	if err != nil {
		return err
	}
	m.hub.Publish(next)
	return nil
}

// Snapshot implements [raft.FSM].
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	return snapshot{m.hub.Snapshot()}, nil
}

// Restore implements [raft.FSM].
func (m *machine) Restore(r io.ReadCloser) error {
	s, err := journal.DecodeState(r, m.decode)
	if err != nil {
		return err
	}
	m.hub.Publish(s)
	return r.Close()
}

type snapshot struct{ state *journal.State }

// Persist implements [raft.FSMSnapshot].
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.state.Encode(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements [raft.FSMSnapshot].
func (s snapshot) Release() {}
