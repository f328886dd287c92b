package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// diskLog is raft's log on disk (docs/adr/0001 says why it is ours): segments
// of records, each file named after the first index that it can hold. Files
// get their space before they are used, and one spare file is always ready, so
// that an append asks the disk for a sync and never for room.
//
// A record is
//
//	length  uint32  of what follows the checksum; 0: no more records
//	sum     uint32  CRC-32C of what follows
//	batch   uint64  index of the first record written in the same call
//	index   uint64
//	term    uint64
//	time    int64   AppendedAt, Unix nanoseconds
//	kind    uint8
//	extra   uint32  length of the extensions
//	extensions, data
//
// The one batch that was being written in a crash may be damaged: it was never
// acknowledged, and is cut off. A damaged record before a later batch is loss
// of what was acknowledged: an error.
type diskLog struct {
	dir         string
	segmentSize int64
	log         *slog.Logger
	fault       func() error // tests: makes writes fail

	writing sync.Mutex // held by whoever changes the log

	mu       sync.RWMutex // guards what follows; never held during I/O of writes
	segments []*segment   // by index, the last one is written to
	first    uint64       // 0: empty
	last     uint64
}

// segment is one file. Only the last one changes.
type segment struct {
	f     *os.File
	start uint64 // the index in its name
	size  int64  // that was allocated
	end   int64  // of the records
	dirty int64  // up to here a failed write may have left something

	once    sync.Once // offsets of all but the last are read when they are needed
	err     error
	offsets []int64 // of each record
}

const (
	headSize = 8
	metaSize = 8 + 8 + 8 + 8 + 1 + 4
	spare    = "spare"
	suffix   = ".log"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	endian     = binary.BigEndian
	errDamaged = errors.New("damaged")
)

var _ raft.MonotonicLogStore = (*diskLog)(nil)

// openDiskLog opens the log in dir and mends its end.
func openDiskLog(dir string, segmentSize int64, log *slog.Logger) (*diskLog, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &diskLog{dir: dir, segmentSize: segmentSize, log: log}
	if err := l.open(); err != nil {
		l.Close()
		return nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	l.prepareSpare()
	return l, nil
}

func (l *diskLog) open() error {
	names, err := os.ReadDir(l.dir) // sorted, as the indexes are
	if err != nil {
		return err
	}
	for _, entry := range names {
		base, ok := strings.CutSuffix(entry.Name(), suffix)
		if !ok {
			continue
		}
		start, err := strconv.ParseUint(base, 10, 64)
		if err != nil {
			return fmt.Errorf("%s: not a segment's name", entry.Name())
		}
		f, err := os.OpenFile(filepath.Join(l.dir, entry.Name()), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		l.segments = append(l.segments, &segment{f: f, start: start, size: info.Size()})
	}
	if len(l.segments) == 0 {
		return nil
	}
	tail := l.segments[len(l.segments)-1]
	if err := l.mend(tail); err != nil {
		return err
	}
	l.first, l.last = l.segments[0].start, tail.last()
	if l.last < l.first {
		l.first, l.last = 0, 0
	}
	return nil
}

// mend reads the last segment up to where its records end, and clears what
// stands behind them.
func (l *diskLog) mend(s *segment) error {
	data := make([]byte, s.size)
	if _, err := s.f.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	s.once.Do(func() {})
	s.offsets, s.end = scan(data, s.start)
	rest := data[s.end:]
	garbage := !allZero(rest)
	if garbage {
		next := s.last() + 1
		if index, ok := laterBatch(rest, next); ok {
			return fmt.Errorf("%w: %s: record %d cannot be read, but %d can, which was written after it was safe: restore this server from a snapshot",
				errDamaged, s.f.Name(), next, index)
		}
		l.log.Warn("journal: dropped an unfinished write", "file", s.f.Name(), "index", next)
	}
	if garbage || s.size < l.segmentSize {
		if err := s.cut(s.end, max(l.segmentSize, s.end)); err != nil {
			return err
		}
	}
	s.dirty = s.end
	return nil
}

func allZero(data []byte) bool {
	var zeros [4096]byte
	for len(data) > 0 {
		n := min(len(data), len(zeros))
		if !bytes.Equal(data[:n], zeros[:n]) {
			return false
		}
		data = data[n:]
	}
	return true
}

// scan returns where the records of a segment stand, and where they end.
func scan(data []byte, start uint64) (offsets []int64, end int64) {
	for {
		size, index, _, ok := parse(data[end:])
		if !ok || index != start+uint64(len(offsets)) {
			return offsets, end
		}
		offsets = append(offsets, end)
		end += size
	}
}

// parse reads the record at the start of data as far as its place is concerned.
func parse(data []byte) (size int64, index, batch uint64, ok bool) {
	if len(data) < headSize+metaSize {
		return 0, 0, 0, false
	}
	length := int64(endian.Uint32(data))
	if length < metaSize || length > int64(len(data)-headSize) {
		return 0, 0, 0, false
	}
	body := data[headSize : headSize+length]
	if crc32.Checksum(body, castagnoli) != endian.Uint32(data[4:]) {
		return 0, 0, 0, false
	}
	return headSize + length, endian.Uint64(body[8:]), endian.Uint64(body), true
}

// laterBatch looks for a record of a batch that began after index lost.
func laterBatch(data []byte, lost uint64) (uint64, bool) {
	for ; len(data) >= headSize+metaSize; data = data[1:] {
		// Cheap tests first: the checksum runs over megabytes.
		batch, index := endian.Uint64(data[headSize:]), endian.Uint64(data[headSize+8:])
		if batch <= lost || index < batch || index-lost > uint64(len(data)) {
			continue
		}
		if _, index, _, ok := parse(data); ok {
			return index, true
		}
	}
	return 0, false
}

// cut removes what stands behind end, and gives the file size bytes again.
func (s *segment) cut(end, size int64) error {
	if err := s.f.Truncate(end); err != nil {
		return err
	}
	if err := allocate(s.f, size); err != nil && !errors.Is(err, unix.ENOSPC) {
		return err // without room the file grows when it is written to
	}
	s.end, s.size, s.dirty = end, size, end
	return s.f.Sync()
}

// load reads the offsets of a segment that is complete.
func (s *segment) load() error {
	s.once.Do(func() {
		data := make([]byte, s.size)
		if _, s.err = s.f.ReadAt(data, 0); s.err != nil && !errors.Is(s.err, io.EOF) {
			return
		}
		s.err = nil
		s.offsets, s.end = scan(data, s.start)
	})
	return s.err
}

// last is the index of the last record; of an empty segment, the one before it.
func (s *segment) last() uint64 { return s.start + uint64(len(s.offsets)) - 1 }

// IsMonotonic implements [raft.MonotonicLogStore].
func (l *diskLog) IsMonotonic() bool { return true }

// FirstIndex implements [raft.LogStore].
func (l *diskLog) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.first, nil
}

// LastIndex implements [raft.LogStore].
func (l *diskLog) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last, nil
}

// GetLog implements [raft.LogStore].
func (l *diskLog) GetLog(index uint64, into *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.first == 0 || index < l.first || index > l.last {
		return raft.ErrLogNotFound
	}
	s := l.segments[l.find(index)]
	if err := s.load(); err != nil {
		return fmt.Errorf("read log %d: %w", index, err)
	}
	if index > s.last() {
		return fmt.Errorf("read log %d: %w: %s ends at %d", index, errDamaged, s.f.Name(), s.last())
	}
	from, to := s.offsets[index-s.start], s.end
	if index < s.last() {
		to = s.offsets[index-s.start+1]
	}
	data := make([]byte, to-from)
	if _, err := s.f.ReadAt(data, from); err != nil {
		return fmt.Errorf("read log %d: %w", index, err)
	}
	if _, got, _, ok := parse(data); !ok || got != index {
		return fmt.Errorf("read log %d: %w: %s at %d", index, errDamaged, s.f.Name(), from)
	}
	body := data[headSize:]
	extra := int(endian.Uint32(body[metaSize-4:]))
	if extra > len(body)-metaSize {
		return fmt.Errorf("read log %d: %w: %s at %d", index, errDamaged, s.f.Name(), from)
	}
	*into = raft.Log{
		Index:      index,
		Term:       endian.Uint64(body[16:]),
		AppendedAt: time.Unix(0, int64(endian.Uint64(body[24:]))),
		Type:       raft.LogType(body[32]),
		Extensions: body[metaSize : metaSize+extra : metaSize+extra],
		Data:       body[metaSize+extra:],
	}
	return nil
}

// find returns which segment holds index.
func (l *diskLog) find(index uint64) int {
	i, found := slices.BinarySearchFunc(l.segments, index, func(s *segment, index uint64) int {
		switch {
		case s.start < index:
			return -1
		case s.start > index:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	return i
}

// StoreLog implements [raft.LogStore].
func (l *diskLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements [raft.LogStore]. After an error nothing of logs is
// there, and the next call may try again.
func (l *diskLog) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.store(logs); err != nil {
		return fmt.Errorf("write log %d: %w", logs[0].Index, err)
	}
	return nil
}

func (l *diskLog) store(logs []*raft.Log) error {
	first := logs[0].Index
	if l.last != 0 && first != l.last+1 {
		return fmt.Errorf("does not follow %d", l.last)
	}
	var data []byte
	var places []int64
	for i, log := range logs {
		if log.Index != first+uint64(i) {
			return fmt.Errorf("%d stands where %d should", log.Index, first+uint64(i))
		}
		places = append(places, int64(len(data)))
		data = appendRecord(data, first, log)
	}
	s, err := l.room(first, int64(len(data)))
	if err != nil {
		return err
	}
	records := int64(len(data))
	if behind := s.dirty - s.end - records; behind > 0 {
		data = append(data, make([]byte, behind)...)
	}
	s.dirty = max(s.dirty, s.end+int64(len(data)))
	if l.fault != nil {
		if err := l.fault(); err != nil {
			return err
		}
	}
	if _, err := s.f.WriteAt(data, s.end); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(s.f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", s.f.Name(), err)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, place := range places {
		s.offsets = append(s.offsets, s.end+place)
	}
	s.end += records
	s.dirty = s.end
	s.size = max(s.size, s.end)
	if l.first == 0 {
		l.first = first
	}
	l.last = s.last()
	return nil
}

func appendRecord(data []byte, batch uint64, log *raft.Log) []byte {
	at := len(data)
	data = append(data, make([]byte, headSize)...)
	data = endian.AppendUint64(data, batch)
	data = endian.AppendUint64(data, log.Index)
	data = endian.AppendUint64(data, log.Term)
	data = endian.AppendUint64(data, uint64(log.AppendedAt.UnixNano()))
	data = append(data, byte(log.Type))
	data = endian.AppendUint32(data, uint32(len(log.Extensions)))
	data = append(data, log.Extensions...)
	data = append(data, log.Data...)
	body := data[at+headSize:]
	endian.PutUint32(data[at:], uint32(len(body)))
	endian.PutUint32(data[at+4:], crc32.Checksum(body, castagnoli))
	return data
}

// room returns the segment that takes size bytes from index first on.
func (l *diskLog) room(first uint64, size int64) (*segment, error) {
	if n := len(l.segments); n > 0 {
		s := l.segments[n-1]
		if len(s.offsets) == 0 && s.start != first {
			if err := l.remove(n - 1); err != nil { // an empty one, of before the log was replaced by a snapshot
				return nil, err
			}
		} else if len(s.offsets) == 0 || s.end+size <= l.segmentSize {
			return s, nil
		}
	}
	f, err := l.takeSpare()
	if err != nil {
		return nil, err
	}
	name := filepath.Join(l.dir, fmt.Sprintf("%020d%s", first, suffix))
	if err := os.Rename(f.Name(), name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	if f, err = os.OpenFile(name, os.O_RDWR, 0); err != nil { // under its new name
		return nil, err
	}
	if err := syncDir(l.dir); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	s := &segment{f: f, start: first, size: l.segmentSize}
	s.once.Do(func() {})
	l.mu.Lock()
	l.segments = append(l.segments, s)
	l.mu.Unlock()
	l.prepareSpare()
	return s, nil
}

// prepareSpare gets the next segment's room while there is some.
func (l *diskLog) prepareSpare() {
	f, err := l.takeSpare()
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		l.log.Warn("journal: no room yet for the next part of the log", "error", err)
	}
}

// takeSpare returns the spare file, made if need be.
func (l *diskLog) takeSpare() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(l.dir, spare), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := allocate(f, l.segmentSize); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// DeleteRange implements [raft.LogStore]: the start or the end of the log.
func (l *diskLog) DeleteRange(from, to uint64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.first == 0 || from > to || to < l.first || from > l.last {
		return nil
	}
	var err error
	switch {
	case from <= l.first:
		err = l.deleteStart(to)
	case to >= l.last:
		err = l.deleteEnd(from)
	default:
		err = fmt.Errorf("it goes from %d to %d, and only its start or end can go", l.first, l.last)
	}
	if err != nil {
		return fmt.Errorf("delete logs %d to %d: %w", from, to, err)
	}
	return nil
}

func (l *diskLog) deleteStart(to uint64) error {
	whole := to >= l.last
	for len(l.segments) > 0 && (whole || len(l.segments) > 1 && l.segments[1].start <= to+1) {
		if err := l.remove(0); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.first = to + 1
	if whole {
		l.first, l.last = 0, 0
	}
	l.mu.Unlock()
	return syncDir(l.dir)
}

func (l *diskLog) deleteEnd(from uint64) error {
	l.mu.Lock() // also during I/O: readers may not see a segment that is being cut
	l.last = from - 1
	keep := l.find(l.last)
	l.mu.Unlock()
	for len(l.segments) > keep+1 {
		if err := l.remove(len(l.segments) - 1); err != nil {
			return err
		}
	}
	if err := syncDir(l.dir); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.segments[keep]
	if err := s.load(); err != nil {
		return err
	}
	if n := int(from - s.start); n < len(s.offsets) {
		if err := s.cut(s.offsets[n], max(l.segmentSize, s.offsets[n])); err != nil {
			return err
		}
		s.offsets = s.offsets[:n]
	}
	return nil
}

// remove deletes the segment at position i.
func (l *diskLog) remove(i int) error {
	s := l.segments[i]
	if err := os.Remove(s.f.Name()); err != nil {
		return err
	}
	l.mu.Lock()
	l.segments = slices.Delete(slices.Clone(l.segments), i, i+1)
	l.mu.Unlock()
	return s.f.Close()
}

// Close closes the files.
func (l *diskLog) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.segments {
		errs = append(errs, s.f.Close())
	}
	l.segments, l.first, l.last = nil, 0, 0
	return errors.Join(errs...)
}

// allocate gives f size bytes of the disk.
func allocate(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, info.Size(), size-info.Size())
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fill(f, info.Size(), size)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("get %d bytes for %s: %w", size, f.Name(), err), f.Truncate(info.Size()))
	}
	return f.Sync()
}

// fill writes zeros where the file system has no other way to reserve room.
func fill(f *os.File, from, to int64) error {
	zeros := make([]byte, 1<<20)
	for from < to {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), to-from)], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
