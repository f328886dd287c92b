package raftlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// ballot is raft's stable store: its term and vote, and this server's id. It
// is one file of two slots, written in turns, so that one is whole whenever
// the other is being written, and no write needs room on the disk.
//
// raft panics when it cannot write its term. So a write is tried again until
// it succeeds: this server neither votes nor leads meanwhile, and still shows
// what it knows.
type ballot struct {
	f      *os.File
	log    *slog.Logger
	fault  func() error // tests: makes writes fail
	closed chan struct{}

	mu     sync.Mutex
	turn   uint64 // of the last write; its slot is turn modulo 2
	values map[string][]byte
}

// A slot is
//
//	length  uint32  of the values
//	sum     uint32  CRC-32C of what follows
//	turn    uint64
//	values  JSON
const slotSize = 4096

// termKey is raft's.
const termKey = "CurrentTerm"

var _ raft.StableStore = (*ballot)(nil)

func openBallot(path string, log *slog.Logger) (*ballot, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	b := &ballot{f: f, log: log, closed: make(chan struct{}), values: make(map[string][]byte)}
	if err := b.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	return b, nil
}

func (b *ballot) read() error {
	data := make([]byte, 2*slotSize)
	if _, err := b.f.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, slot := range [][]byte{data[:slotSize], data[slotSize:]} {
		length := endian.Uint32(slot)
		if length == 0 || length > slotSize-16 || crc32.Checksum(slot[8:16+length], castagnoli) != endian.Uint32(slot[4:]) {
			continue
		}
		if turn := endian.Uint64(slot[8:]); turn > b.turn {
			values := make(map[string][]byte)
			if err := json.Unmarshal(slot[16:16+length], &values); err != nil {
				return err
			}
			b.turn, b.values = turn, values
		}
	}
	// The second turn's slot is empty until the second write: one bad slot is a
	// crash, two are damage.
	if b.turn == 0 && !allZero(data[:slotSize]) && !allZero(data[slotSize:]) {
		return fmt.Errorf("%w: term and vote cannot be read: restore this server from a snapshot", errDamaged)
	}
	return allocate(b.f, 2*slotSize)
}

// write makes values durable.
func (b *ballot) write(values map[string][]byte) error {
	text, err := json.Marshal(values)
	if err != nil {
		return err
	}
	if len(text) > slotSize-16 {
		return fmt.Errorf("%d bytes do not fit", len(text))
	}
	slot := make([]byte, 16, slotSize)
	endian.PutUint32(slot, uint32(len(text)))
	endian.PutUint64(slot[8:], b.turn+1)
	slot = append(slot, text...)
	endian.PutUint32(slot[4:], crc32.Checksum(slot[8:], castagnoli))
	if b.fault != nil {
		if err := b.fault(); err != nil {
			return err
		}
	}
	if _, err := b.f.WriteAt(slot, int64((b.turn+1)%2)*slotSize); err != nil {
		return err
	}
	return unix.Fdatasync(int(b.f.Fd()))
}

// Set implements [raft.StableStore].
func (b *ballot) Set(key, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	values := maps.Clone(b.values)
	values[string(key)] = value
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := b.write(values)
		if err == nil {
			b.turn++
			b.values = values
			return nil
		}
		b.log.Error("journal: cannot write the term or vote, trying again", "file", b.f.Name(), "error", err)
		select {
		case <-time.After(pause):
		case <-b.closed:
			if string(key) == termKey {
				return nil // nothing else is written any more that could rest on it
			}
			return fmt.Errorf("write %s: %w", b.f.Name(), err)
		}
	}
}

// Get implements [raft.StableStore].
func (b *ballot) Get(key []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.values[string(key)], nil
}

// SetUint64 implements [raft.StableStore].
func (b *ballot) SetUint64(key []byte, value uint64) error {
	return b.Set(key, endian.AppendUint64(nil, value))
}

// GetUint64 implements [raft.StableStore].
func (b *ballot) GetUint64(key []byte) (uint64, error) {
	value, err := b.Get(key)
	if err != nil || len(value) == 0 {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%s: %s is no number", b.f.Name(), key)
	}
	return endian.Uint64(value), nil
}

// release lets go of writes that do not succeed. Call it before raft is shut down.
func (b *ballot) release() { close(b.closed) }

// Close closes the file.
func (b *ballot) Close() error { return b.f.Close() }
