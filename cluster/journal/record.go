package journal

import (
	"sync"

	"github.com/troupe-sh/troupe/api"
)

// Decoder makes the object of a record's value and sets its resourceVersion
// from seq: api.Decode, behind seal.Decoder where values are sealed.
type Decoder func(key api.Key, value []byte, seq uint64) (api.Object, error)

// Record is an object as one change left it. It never changes.
type Record struct {
	Key   api.Key
	Seq   uint64 // the change that made it: its resourceVersion
	Value []byte
	Index []string

	decode Decoder
	mu     sync.Mutex
	object api.Object // the decoded value, once somebody asked for it
}

// Object is the decoded value. It is decoded on first touch and shared by all
// readers: DeepCopyObject it before changing it.
func (r *Record) Object() (api.Object, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.object == nil {
		object, err := r.decode(r.Key, r.Value, r.Seq)
		if err != nil {
			return nil, err
		}
		r.object = object
	}
	return r.object, nil
}

// forget drops the decoded object, which most likely nobody asks for again.
func (r *Record) forget() {
	r.mu.Lock()
	r.object = nil
	r.mu.Unlock()
}

// Changed is one change of an object: New is nil if it was deleted, Old if it
// was created.
type Changed struct {
	Seq uint64
	Old *Record
	New *Record
}

// replaced is the size of the value that c took out of the present: what its
// being remembered costs. What it made is of the present, or replaced by a
// later change.
func (c Changed) replaced() int {
	if c.Old == nil {
		return 0
	}
	return len(c.Old.Value)
}
