package journal

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-sh/troupe/messages"
)

// A snapshot is this line, which names its version, and then frames, each
// behind its length: messages.SnapshotFrame says in which order.
const snapshotMagic = "troupe journal snapshot 1\n"

// frameLimit is above everything that an entry can hold.
const frameLimit = EntryLimit + 1<<20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode writes s as a stream. The same state is always the same bytes.
func (s *State) Encode(w io.Writer) error {
	e := &encoder{w: bufio.NewWriterSize(w, 64<<10)}
	e.write([]byte(snapshotMagic))
	e.frame(&messages.SnapshotFrame{Frame: &messages.SnapshotFrame_Header{Header: &messages.SnapshotHeader{
		Incarnation: s.incarnation, Sequence: s.seq, Time: toTimestamp(s.time),
	}}})
	s.objects.Root().Walk(func(_ []byte, r *Record) bool {
		e.frame(&messages.SnapshotFrame{Frame: &messages.SnapshotFrame_Object{Object: toRecord(r)}})
		return e.err != nil
	})
	s.pasts.Root().Walk(func(_ []byte, p past) bool {
		e.frame(&messages.SnapshotFrame{Frame: &messages.SnapshotFrame_Past{Past: &messages.SnapshotPast{
			Resource: p.resource, Floor: p.floor,
		}}})
		for i := 0; i < p.changes.length && e.err == nil; i++ {
			e.frame(&messages.SnapshotFrame{Frame: &messages.SnapshotFrame_Change{Change: s.toChange(p, p.changes.at(i))}})
		}
		return e.err != nil
	})
	for i := 0; i < s.expiry.length && e.err == nil; i++ {
		c := s.expiry.at(i)
		e.frame(&messages.SnapshotFrame{Frame: &messages.SnapshotFrame_Command{Command: &messages.SnapshotCommand{
			Id: c.id, Result: c.result, Time: toTimestamp(c.time),
		}}})
	}
	e.end()
	if e.err == nil {
		e.err = e.w.Flush()
	}
	if e.err != nil {
		return fmt.Errorf("write snapshot: %w", e.err)
	}
	return nil
}

// toChange writes each state of an object once: the present one with the
// objects, a past one with the change that made it, and what stood before the
// whole remembered past with the change that ended it.
func (s *State) toChange(p past, c Changed) *messages.SnapshotChange {
	m := &messages.SnapshotChange{Sequence: c.Seq}
	if c.Old != nil {
		if c.Old.Seq > p.floor {
			m.OldSequence = c.Old.Seq
		} else {
			m.Old = toRecord(c.Old)
		}
	}
	if c.New != nil {
		if now, ok := s.Get(c.New.Key); ok && now == c.New {
			m.Current = true
		} else {
			m.Made = toRecord(c.New)
		}
	}
	return m
}

type encoder struct {
	w   *bufio.Writer
	buf []byte
	sum uint32
	err error
}

func (e *encoder) write(data []byte) {
	if e.err != nil {
		return
	}
	e.sum = crc32.Update(e.sum, castagnoli, data)
	_, e.err = e.w.Write(data)
}

func (e *encoder) frame(m *messages.SnapshotFrame) {
	if e.err != nil {
		return
	}
	options := proto.MarshalOptions{Deterministic: true}
	e.buf = protowire.AppendVarint(e.buf[:0], uint64(options.Size(m)))
	if e.buf, e.err = options.MarshalAppend(e.buf, m); e.err == nil {
		e.write(e.buf)
	}
}

func toRecord(r *Record) *messages.SnapshotRecord {
	return &messages.SnapshotRecord{Key: toKey(r.Key), Sequence: r.Seq, Value: r.Value, Index: r.Index}
}

func (e *encoder) end() {
	e.frame(&messages.SnapshotFrame{Frame: &messages.SnapshotFrame_End{End: &messages.SnapshotEnd{Checksum: e.sum}}})
}

// DecodeState reads what Encode wrote.
func DecodeState(r io.Reader, decode Decoder) (*State, error) {
	d := &decoder{
		r:     &summed{r: bufio.NewReaderSize(r, 64<<10)},
		state: NewState(decode),
		made:  make(map[uint64]*Record),
	}
	if err := d.run(); err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return d.state, nil
}

type decoder struct {
	r     *summed
	state *State
	made  map[uint64]*Record // every state that a change made, by its number

	past     *messages.SnapshotPast // the one that is being read
	changes  []Changed
	commands []*command
}

func (d *decoder) run() error {
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(d.r, magic); err != nil {
		return err
	}
	if string(magic) != snapshotMagic {
		return fmt.Errorf("begins with %q instead of %q: not a snapshot, or one of a newer agent", magic, snapshotMagic)
	}
	first, _, err := d.frame()
	if err != nil {
		return err
	}
	header := first.GetHeader()
	if header == nil {
		return errors.New("no header")
	}
	d.state.incarnation = header.GetIncarnation()
	d.state.seq = header.GetSequence()
	d.state.time = fromTimestamp(header.GetTime())
	objects, terms := d.state.objects.Txn(), d.state.terms.Txn()
	for {
		f, sum, err := d.frame()
		if err != nil {
			return err
		}
		switch f := f.GetFrame().(type) {
		case *messages.SnapshotFrame_Object:
			r, err := d.record(f.Object)
			if err != nil {
				return err
			}
			key := objectKey(r.Key)
			objects.Insert(key, r)
			for _, term := range r.Index {
				terms.Insert(termKey(term, key), r)
			}
		case *messages.SnapshotFrame_Past:
			d.endPast()
			d.past = f.Past
		case *messages.SnapshotFrame_Change:
			if err := d.change(f.Change); err != nil {
				return err
			}
		case *messages.SnapshotFrame_Command:
			d.commands = append(d.commands, &command{
				f.Command.GetId(), f.Command.GetResult(), fromTimestamp(f.Command.GetTime()),
			})
		case *messages.SnapshotFrame_End:
			if f.End.GetChecksum() != sum {
				return fmt.Errorf("damaged: checksum %08x, written with %08x", sum, f.End.GetChecksum())
			}
			if _, err := d.r.ReadByte(); !errors.Is(err, io.EOF) {
				return errors.New("damaged: goes on past its end")
			}
			d.state.objects, d.state.terms = objects.CommitOnly(), terms.CommitOnly()
			d.endPast()
			d.endCommands()
			return nil
		default:
			return fmt.Errorf("unknown frame %T: of a newer agent", f)
		}
	}
}

// frame reads the next frame and the checksum of all before it.
func (d *decoder) frame() (*messages.SnapshotFrame, uint32, error) {
	sum := d.r.sum
	var f messages.SnapshotFrame
	err := protodelim.UnmarshalOptions{MaxSize: frameLimit}.UnmarshalFrom(d.r, &f)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("damaged: cut off: %w", io.ErrUnexpectedEOF)
	}
	return &f, sum, err
}

func (d *decoder) record(m *messages.SnapshotRecord) (*Record, error) {
	r := &Record{
		Key: canonical(fromKey(m.GetKey()), nil), Seq: m.GetSequence(), Value: m.GetValue(), Index: m.GetIndex(),
		decode: d.state.decode,
	}
	if err := Check(Change{Key: r.Key, Index: r.Index}); err != nil {
		return nil, err
	}
	if r.Seq == 0 || r.Seq > d.state.seq {
		return nil, fmt.Errorf("damaged: %s of change %d, the last one is %d", r.Key, r.Seq, d.state.seq)
	}
	d.made[r.Seq] = r
	return r, nil
}

func (d *decoder) change(m *messages.SnapshotChange) error {
	after := d.past.GetFloor()
	if n := len(d.changes); n > 0 {
		after = d.changes[n-1].Seq
	}
	c := Changed{Seq: m.GetSequence()}
	if d.past == nil || c.Seq <= after || c.Seq > d.state.seq {
		return fmt.Errorf("damaged: change %d out of order", c.Seq)
	}
	var err error
	if m.GetOld() != nil {
		if c.Old, err = d.record(m.GetOld()); err != nil {
			return err
		}
	} else {
		c.Old = d.made[m.GetOldSequence()]
	}
	if m.GetMade() != nil {
		if c.New, err = d.record(m.GetMade()); err != nil {
			return err
		}
	} else if m.GetCurrent() {
		c.New = d.made[c.Seq]
	}
	if (c.Old == nil) != (m.GetOld() == nil && m.GetOldSequence() == 0) ||
		(c.New == nil) != (m.GetMade() == nil && !m.GetCurrent()) || c.Old == nil && c.New == nil {
		return fmt.Errorf("damaged: change %d names an object that is not there", c.Seq)
	}
	d.changes = append(d.changes, c)
	return nil
}

func (d *decoder) endPast() {
	if d.past == nil {
		return
	}
	p := past{resource: d.past.GetResource(), floor: d.past.GetFloor()}
	p.changes = p.changes.push(d.changes)
	for _, c := range d.changes {
		p.bytes += c.replaced()
	}
	d.state.pasts, _, _ = d.state.pasts.Insert([]byte(p.resource), p)
	d.past, d.changes = nil, nil
}

func (d *decoder) endCommands() {
	commands := d.state.commands.Txn()
	for _, c := range d.commands {
		commands.Insert([]byte(c.id), c)
	}
	d.state.commands = commands.CommitOnly()
	d.state.expiry = d.state.expiry.push(d.commands)
}

// summed keeps the checksum of what was read from r.
type summed struct {
	r   *bufio.Reader
	sum uint32
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum = crc32.Update(s.sum, castagnoli, p[:n])
	return n, err
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum = crc32.Update(s.sum, castagnoli, []byte{b})
	}
	return b, err
}
