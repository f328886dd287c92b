package daemon

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// journal is where a stream's bytes stand between the FIFO and the log file.
// The kernel moves them there (splice), so the bytes taken out of the FIFO are
// exactly those in this file, at whatever moment the keeper is killed. What
// of them already stands in the log file is told by the header, which is
// written before the log file is: if the file has grown to what the header
// announced, the write happened, else it is cut back and done again.
type journal struct {
	f    *os.File
	head header
	end  int64 // bytes of data in the file
}

// header is the first page's beginning.
type header struct {
	pos int64 // data up to here is in the log
	// One write that may be under way: from logAt, logLen bytes, which bring pos to next.
	logAt, logLen, next int64
	// cut is 1 + the size of the data that a compaction leaves; 0: none under way.
	cut int64
}

const (
	dataAt = 4096 // the header has a page of its own: rewriting it never needs room

	fillSize   = 64 << 10  // as much as a FIFO holds
	compactAt  = 256 << 10 // data in the journal that is worth a compaction
	compactNow = 16 << 10  // the same while nothing comes
)

// openJournal opens or makes a journal. logSize is the size of the log file;
// if the log must be cut back, cutLog is called.
func openJournal(path string, logSize int64, cutLog func(int64) error) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f}
	if err := j.recover(logSize, cutLog); err != nil {
		f.Close()
		return nil, fmt.Errorf("recover %s: %w", path, err)
	}
	return j, nil
}

func (j *journal) recover(logSize int64, cutLog func(int64) error) error {
	st, err := j.f.Stat()
	if err != nil {
		return err
	}
	if st.Size() < dataAt {
		if err := j.f.Truncate(dataAt); err != nil {
			return err
		}
		return j.put(j.head)
	}
	var b [40]byte
	if _, err := j.f.ReadAt(b[:], 0); err != nil {
		return err
	}
	for i, v := range []*int64{&j.head.pos, &j.head.logAt, &j.head.logLen, &j.head.next, &j.head.cut} {
		*v = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	j.end = st.Size() - dataAt
	h := &j.head
	if h.cut > 0 && h.cut-1 <= j.end {
		j.end = h.cut - 1
		if err := j.f.Truncate(dataAt + j.end); err != nil {
			return err
		}
	}
	if h.logLen > 0 {
		// A log shorter than before the write was cut by somebody else: nothing to mend there.
		if h.logAt <= logSize && logSize < h.logAt+h.logLen {
			if err := cutLog(h.logAt); err != nil {
				return err
			}
		} else {
			h.pos = h.next
		}
	}
	if h.pos < 0 || h.pos > j.end {
		h.pos = j.end // only a machine that lost power leaves this
	}
	return j.commit(h.pos)
}

// fill moves what the FIFO holds into the journal. It returns 0 when the FIFO
// is empty and nobody has it open for writing, EAGAIN when it is only empty.
func (j *journal) fill(fifo int) (int64, error) {
	off := dataAt + j.end
	for {
		n, err := unix.Splice(fifo, nil, int(j.f.Fd()), &off, fillSize, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if err == unix.EINTR {
			continue
		}
		if n > 0 {
			j.end += n
		}
		return n, err
	}
}

// pending is how much is not yet in the log.
func (j *journal) pending() int64 { return j.end - j.head.pos }

// read returns what is not yet in the log, as far as buf holds it.
func (j *journal) read(buf []byte) ([]byte, error) {
	n := min(j.pending(), int64(len(buf)))
	m, err := j.f.ReadAt(buf[:n], dataAt+j.head.pos)
	if int64(m) == n {
		err = nil
	}
	return buf[:m], err
}

// intend notes the write to the log that comes next: size bytes at offset at,
// which hold the next used bytes of data.
func (j *journal) intend(at, size, used int64) error {
	j.head = header{pos: j.head.pos, logAt: at, logLen: size, next: j.head.pos + used}
	return j.put(j.head)
}

// wrote says that the intended write happened. The header on disk may say
// "intended" until the next one: it proves itself by the log's size.
func (j *journal) wrote() { j.head.pos = j.head.next }

// commit makes pos final without regard to the log's size.
func (j *journal) commit(pos int64) error {
	j.head = header{pos: pos}
	return j.put(j.head)
}

// settle makes the last write final on disk, before the log file that proves
// it is put aside.
func (j *journal) settle() error { return j.put(header{pos: j.head.pos}) }

// compact drops what is in the log when there is enough of it.
func (j *journal) compact(worth int64) error {
	rest := j.pending()
	if j.head.pos < worth || rest > j.head.pos {
		return nil
	}
	buf := make([]byte, rest)
	if _, err := j.read(buf); err != nil {
		return err
	}
	if _, err := j.f.WriteAt(buf, dataAt); err != nil {
		return err
	}
	j.head = header{cut: rest + 1}
	if err := j.put(j.head); err != nil {
		return err
	}
	if err := j.f.Truncate(dataAt + rest); err != nil {
		return err
	}
	j.end = rest
	return j.commit(0)
}

func (j *journal) put(h header) error {
	var b [40]byte
	for i, v := range []int64{h.pos, h.logAt, h.logLen, h.next, h.cut} {
		binary.LittleEndian.PutUint64(b[8*i:], uint64(v))
	}
	_, err := j.f.WriteAt(b[:], 0)
	return err
}

func (j *journal) close() error { return j.f.Close() }
