package journal

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/messages"
)

// entryVersion is the first byte of an encoded entry; what follows is a
// messages.JournalEntry.
const entryVersion = 1

// EntryLimit is the largest encoded entry that the adapters take.
const EntryLimit = 16 << 20

// EncodeEntry returns what stands in the log for e.
func EncodeEntry(e Entry) ([]byte, error) {
	m := &messages.JournalEntry{
		Incarnation: e.Epoch.Incarnation,
		Term:        e.Epoch.Term,
		Base:        e.Base,
		Time:        toTimestamp(e.Time),
		Actor:       e.Actor,
		Changes:     make([]*messages.JournalChange, len(e.Changes)),
		Commands:    make([]*messages.JournalCommand, len(e.Commands)),
	}
	for i, c := range e.Changes {
		m.Changes[i] = &messages.JournalChange{Key: toKey(c.Key), Value: c.Value, Index: c.Index}
	}
	for i, c := range e.Commands {
		m.Commands[i] = &messages.JournalCommand{Id: c.ID, Result: c.Result}
	}
	data, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{entryVersion}, m)
	if err != nil {
		return nil, fmt.Errorf("encode entry: %w", err)
	}
	if len(data) > EntryLimit {
		return nil, fmt.Errorf("encode entry: %d bytes, at most %d can be written at once", len(data), EntryLimit)
	}
	return data, nil
}

// DecodeEntry is the inverse of EncodeEntry. The entry shares nothing with data.
func DecodeEntry(data []byte) (Entry, error) {
	if len(data) == 0 {
		return Entry{}, errors.New("decode entry: empty")
	}
	if data[0] != entryVersion {
		return Entry{}, fmt.Errorf("decode entry: version %d, this agent knows %d: run a newer one", data[0], entryVersion)
	}
	var m messages.JournalEntry
	if err := proto.Unmarshal(data[1:], &m); err != nil {
		return Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	e := Entry{
		Epoch:    Epoch{Incarnation: m.GetIncarnation(), Term: m.GetTerm()},
		Base:     m.GetBase(),
		Time:     fromTimestamp(m.GetTime()),
		Actor:    m.GetActor(),
		Changes:  make([]Change, len(m.GetChanges())),
		Commands: make([]Command, len(m.GetCommands())),
	}
	for i, c := range m.GetChanges() {
		e.Changes[i] = Change{Key: fromKey(c.GetKey()), Value: c.GetValue(), Index: c.GetIndex()}
	}
	for i, c := range m.GetCommands() {
		e.Commands[i] = Command{ID: c.GetId(), Result: c.GetResult()}
	}
	return e, nil
}

func toKey(k api.Key) *messages.ObjectKey {
	return &messages.ObjectKey{Resource: k.Resource, Namespace: k.Namespace, Name: k.Name}
}

func fromKey(k *messages.ObjectKey) api.Key {
	return api.Key{Resource: k.GetResource(), Namespace: k.GetNamespace(), Name: k.GetName()}
}

func toTimestamp(nanos int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(0, nanos)) }

func fromTimestamp(t *timestamppb.Timestamp) int64 { return t.AsTime().UnixNano() }
