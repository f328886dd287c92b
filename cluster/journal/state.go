package journal

import (
	"bytes"
	"fmt"
	"strings"
	"time"
	"unique"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/troupe-sh/troupe/api"
)

// What a State remembers.
const (
	// PastLimit is how many changes of each resource can be watched again.
	PastLimit = 10_000
	// PastBytes is how much of each resource is kept for that alone: the values
	// that those changes replaced. Older changes are forgotten past it.
	PastBytes = 64 << 20
	// CommandAge is how long, in entry time, a command and its result are kept.
	CommandAge = 10 * time.Minute
	// CommandLimit is how many commands are kept at most; the oldest go first.
	CommandLimit = 200_000

	// warm is how many changes of each resource keep the decoded object that
	// they replaced: watchers that keep up read no older ones.
	warm = 256
)

// State is everything that the log says: the objects, their indexes, the past
// of each resource, and the commands that were carried out. It never changes;
// Apply returns the next one. The same entries make the same State on every
// server.
type State struct {
	decode      Decoder
	incarnation uint64
	seq         uint64
	time        int64 // the latest entry's
	objects     *iradix.Tree[*Record]
	terms       *iradix.Tree[*Record]
	pasts       *iradix.Tree[past] // by resource
	commands    *iradix.Tree[*command]
	expiry      queue[*command] // oldest first
}

// past is what happened to one resource. Changes up to floor are forgotten.
type past struct {
	resource string
	floor    uint64
	changes  queue[Changed]
	bytes    int // of the values that the changes replaced
}

type command struct {
	id     string
	result []byte
	time   int64
}

// NewState returns the state before the first entry.
func NewState(decode Decoder) *State {
	return &State{
		decode:      decode,
		incarnation: 1,
		objects:     iradix.New[*Record](),
		terms:       iradix.New[*Record](),
		pasts:       iradix.New[past](),
		commands:    iradix.New[*command](),
	}
}

// Incarnation is raised by restore and by recovery from a lost quorum.
func (s *State) Incarnation() uint64 { return s.incarnation }

// Seq is the number of the last change.
func (s *State) Seq() uint64 { return s.seq }

// Len is how many objects there are.
func (s *State) Len() int { return s.objects.Len() }

// Get returns one object.
func (s *State) Get(k api.Key) (*Record, bool) {
	return s.objects.Get(objectKey(k))
}

// List returns the objects of a resource, sorted by key: those of one
// namespace, or all if namespace is empty.
func (s *State) List(resource, namespace string) []*Record {
	prefix := resource + sep
	if namespace != "" {
		prefix += namespace + sep
	}
	return collect(s.objects, prefix)
}

// Index returns the objects of a resource that were stored with the index
// term, sorted by key.
func (s *State) Index(term, resource string) []*Record {
	return collect(s.terms, term+sep+resource+sep)
}

// Command returns the result of a command that was carried out.
func (s *State) Command(id string) (result []byte, ok bool) {
	c, ok := s.commands.Get([]byte(id))
	if !ok {
		return nil, false
	}
	return c.result, true
}

func collect(t *iradix.Tree[*Record], prefix string) []*Record {
	var found []*Record
	t.Root().WalkPrefix([]byte(prefix), func(_ []byte, r *Record) bool {
		found = append(found, r)
		return false
	})
	return found
}

// Apply returns the state after e, which stands in the log under term. It
// keeps the values of e: nothing may change them afterwards. An error wraps
// ErrRefused; s stands then.
func (s *State) Apply(term uint64, e Entry) (*State, error) {
	if own := (Epoch{s.incarnation, term}); e.Epoch != own {
		return nil, fmt.Errorf("%w: entry of epoch %d.%d in epoch %d.%d",
			ErrRefused, e.Epoch.Incarnation, e.Epoch.Term, own.Incarnation, own.Term)
	}
	if e.Base != s.seq {
		return nil, fmt.Errorf("%w: entry built on change %d, the last one is %d", ErrRefused, e.Base, s.seq)
	}
	for _, c := range e.Changes {
		if err := Check(c); err != nil {
			return nil, err
		}
	}
	next := *s
	next.time = max(s.time, e.Time)
	next.applyChanges(e.Changes)
	next.applyCommands(e.Commands)
	return &next, nil
}

// Check refuses what would not come back from the trees as it went in. An entry
// with such a change is refused as a whole.
func Check(c Change) error {
	if c.Key.Resource == "" || c.Key.Name == "" {
		return fmt.Errorf("%w: change of %q names no object", ErrRefused, c.Key)
	}
	for _, part := range append([]string{c.Key.Resource, c.Key.Namespace, c.Key.Name}, c.Index...) {
		if strings.Contains(part, sep) {
			return fmt.Errorf("%w: zero byte in %.60q", ErrRefused, part)
		}
	}
	return nil
}

func (s *State) applyChanges(changes []Change) {
	if len(changes) == 0 {
		return
	}
	objects, terms := s.objects.Txn(), s.terms.Txn()
	happened := make(map[string][]Changed)
	for _, c := range changes {
		s.seq++
		key := objectKey(c.Key)
		old, _ := objects.Get(key)
		if old != nil {
			for _, term := range old.Index {
				terms.Delete(termKey(term, key))
			}
		}
		if c.Value == nil {
			if old == nil {
				continue // it takes a number all the same, so that the proposer can count
			}
			objects.Delete(key)
			happened[c.Key.Resource] = append(happened[c.Key.Resource], Changed{s.seq, old, nil})
			continue
		}
		made := &Record{Key: canonical(c.Key, old), Seq: s.seq, Value: c.Value, Index: c.Index, decode: s.decode}
		objects.Insert(key, made)
		for _, term := range made.Index {
			terms.Insert(termKey(term, key), made)
		}
		happened[c.Key.Resource] = append(happened[c.Key.Resource], Changed{s.seq, old, made})
	}
	s.objects, s.terms = objects.CommitOnly(), terms.CommitOnly()

	pasts := s.pasts.Txn()
	for resource, changed := range happened {
		p, ok := pasts.Get([]byte(resource))
		if !ok {
			p.resource = strings.Clone(resource)
		}
		pasts.Insert([]byte(resource), p.with(changed))
	}
	s.pasts = pasts.CommitOnly()
}

// with returns p after changed happened.
func (p past) with(changed []Changed) past {
	before := p.changes.length
	p.changes = p.changes.push(changed)
	for i := max(0, before-warm); i < p.changes.length-warm; i++ {
		if old := p.changes.at(i).Old; old != nil {
			old.forget()
		}
	}
	for _, c := range changed {
		p.bytes += c.replaced()
	}
	gone := 0
	for p.changes.length-gone > PastLimit || p.bytes > PastBytes {
		oldest := p.changes.at(gone)
		p.bytes -= oldest.replaced()
		p.floor = oldest.Seq
		gone++
	}
	if gone > 0 {
		p.changes = p.changes.drop(gone)
	}
	return p
}

// last is the number of the last change, whether or not it is remembered.
func (p past) last() uint64 {
	if p.changes.length == 0 {
		return p.floor
	}
	return p.changes.at(p.changes.length - 1).Seq
}

// after is the position of the first change past seq.
func (p past) after(seq uint64) int {
	low, high := 0, p.changes.length
	for low < high {
		if middle := (low + high) / 2; p.changes.at(middle).Seq > seq {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

// last is the number of the last change of a resource.
func (s *State) last(resource string) uint64 {
	p, _ := s.pasts.Get([]byte(resource))
	return p.last()
}

func (s *State) applyCommands(done []Command) {
	commands := s.commands.Txn()
	if len(done) > 0 {
		added := make([]*command, len(done))
		for i, c := range done {
			added[i] = &command{c.ID, c.Result, s.time}
			commands.Insert([]byte(c.ID), added[i])
		}
		s.expiry = s.expiry.push(added)
	}
	gone := 0
	for gone < s.expiry.length {
		oldest := s.expiry.at(gone)
		if s.expiry.length-gone <= CommandLimit && s.time-oldest.time <= int64(CommandAge) {
			break
		}
		if kept, _ := commands.Get([]byte(oldest.id)); kept == oldest {
			commands.Delete([]byte(oldest.id))
		}
		gone++
	}
	if gone > 0 {
		s.expiry = s.expiry.drop(gone)
	}
	s.commands = commands.CommitOnly()
}

// The trees are keyed by strings joined with a byte that sorts before all
// others, so that their order is the order of keys.
const sep = "\x00"

func objectKey(k api.Key) []byte {
	return bytes.Join([][]byte{[]byte(k.Resource), []byte(k.Namespace), []byte(k.Name)}, []byte(sep))
}

func termKey(term string, object []byte) []byte {
	key := make([]byte, 0, len(term)+len(sep)+len(object))
	return append(append(append(key, term...), sep...), object...)
}

// canonical shares the strings that many keys have in common.
func canonical(k api.Key, old *Record) api.Key {
	if old != nil {
		return old.Key
	}
	return api.Key{
		Resource:  unique.Make(k.Resource).Value(),
		Namespace: unique.Make(k.Namespace).Value(),
		Name:      k.Name,
	}
}
