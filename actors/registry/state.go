package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

const (
	batchChanges = 1000
	batchBytes   = 512 << 10
	objectBytes  = 3 << 20 // one object, as large as a request may be
	entryBytes   = 6 << 20 // all of one entry: indexes and notes come on top, and journal.EntryLimit is final
)

// batch is what goes to the journal at once, with the answers that it earns.
type batch struct {
	requests []request
	answers  []any          // beside requests
	certain  map[string]any // of them, to commands that were carried out before: whatever becomes of this batch
	ids      map[string]int // where the answer to a command is
	entry    journal.Entry
	size     int
	tight    bool               // only what frees room is staged
	staged   map[api.Key]staged // what earlier changes of this batch do
}

// staged is an object as a batch leaves it; nil when the batch deletes it.
type staged struct {
	object  api.Object
	value   []byte
	version uint64
}

// prepare takes requests off the queue until the batch is full.
func (r *Registry) prepare() *batch {
	b := &batch{
		ids: map[string]int{}, certain: map[string]any{},
		staged: map[api.Key]staged{},
		entry:  journal.Entry{Epoch: r.config.Epoch, Base: r.config.Journal.Hub().Seq(), Time: r.work.Now().UnixNano()},
	}
	for len(r.waiting) > 0 {
		q := r.waiting[0]
		if q.commit != nil && len(b.requests) > 0 && (len(b.entry.Changes)+len(q.commit.Changes) > batchChanges || b.size > batchBytes) {
			break
		}
		if q.commit != nil && len(b.ids) > 0 && q.tight != b.tight {
			break
		}
		r.waiting = r.waiting[1:]
		b.requests = append(b.requests, q)
		b.tight = b.tight || q.tight
		switch {
		case q.commit == nil:
			b.answers = append(b.answers, &command.Synced{})
		case q.commit.ID != "" && has(b.ids, q.commit.ID):
			b.answers = append(b.answers, b.answers[b.ids[q.commit.ID]])
		default:
			b.ids[q.commit.ID] = len(b.answers)
			b.answers = append(b.answers, r.carryOut(b, q.commit))
		}
	}
	return b
}

func has(m map[string]int, k string) bool { _, ok := m[k]; return ok }

// fail answers every command that nothing is known to be written, but for what
// was written before.
func (b *batch) fail(ctx actor.Context, err error) {
	for _, q := range b.requests {
		switch {
		case q.commit == nil:
		case b.certain[q.commit.ID] != nil:
			answer(ctx, q, b.certain[q.commit.ID])
		default:
			answer(ctx, q, &command.Committed{ID: q.commit.ID, Err: err})
		}
	}
}

// syncs are those that wait for what was before them to settle, which a batch
// that failed has not done.
func (b *batch) syncs() (syncs []request) {
	for _, q := range b.requests {
		if q.commit == nil {
			syncs = append(syncs, q)
		}
	}
	return syncs
}

// remembered is what the journal keeps of a command's answer.
type remembered struct {
	Version uint64         `json:"v,omitempty"`
	Key     api.Key        `json:"k"`
	Error   *metav1.Status `json:"e,omitempty"`
}

// carryOut stages the changes of one commit and returns its answer.
func (r *Registry) carryOut(b *batch, c *command.Commit) *command.Committed {
	if result, ok := r.config.Journal.Hub().Command(c.ID); ok && c.ID != "" {
		answer := r.again(c, result)
		b.certain[c.ID] = answer
		return answer
	}
	answer := &command.Committed{ID: c.ID, Results: make([]command.Result, len(c.Changes))}
	notes := make([]remembered, len(c.Changes))
	before := len(b.entry.Changes)
	unfit := 0
	for i, change := range c.Changes {
		key, object, err := r.stage(b, change)
		answer.Results[i] = command.Result{Object: object, Err: err}
		notes[i].Key = key
		if apierrors.ReasonForError(err) == noRoomReason {
			unfit++
		}
		if err != nil {
			notes[i].Error = status(err)
		} else if object != nil {
			notes[i].Version, _ = strconv.ParseUint(object.GetResourceVersion(), 10, 64)
		}
	}
	if len(b.entry.Changes) > before && c.ID != "" {
		note, err := json.Marshal(notes)
		if err != nil {
			panic(fmt.Errorf("remember %s: %w", c.ID, err))
		}
		b.entry.Commands = append(b.entry.Commands, journal.Command{ID: c.ID, Result: note})
		b.entry.Actor = c.Actor
	}
	if unfit > 0 && unfit == len(c.Changes) {
		return &command.Committed{ID: c.ID, Err: insufficientStorage()}
	}
	return answer
}

// again answers a command that was carried out before.
func (r *Registry) again(c *command.Commit, result []byte) *command.Committed {
	var notes []remembered
	if err := json.Unmarshal(result, &notes); err != nil {
		panic(fmt.Errorf("the journal's answer to %s: %w", c.ID, err))
	}
	answer := &command.Committed{ID: c.ID, Results: make([]command.Result, len(notes))}
	for i, n := range notes {
		if n.Error != nil {
			answer.Results[i].Err = &apierrors.StatusError{ErrStatus: *n.Error}
			continue
		}
		object, err := r.at(n.Key, n.Version)
		answer.Results[i] = command.Result{Object: object, Err: err}
	}
	return answer
}

// at finds the object as change number version left it, or as it now stands
// when the history no longer reaches back that far.
func (r *Registry) at(key api.Key, version uint64) (api.Object, error) {
	hub := r.config.Journal.Hub()
	if record, ok := hub.Get(key); ok && record.Seq == version {
		return record.Object()
	}
	if version > 0 {
		cursor := hub.Subscribe(version-1, func() {}, key.Resource)
		defer cursor.Close()
		if changes, _, err := cursor.Next(1); err == nil && len(changes) == 1 && changes[0].Seq == version {
			if changes[0].New != nil {
				return changes[0].New.Object()
			}
			return changes[0].Old.Object()
		}
	}
	if record, ok := hub.Get(key); ok {
		return record.Object()
	}
	return nil, gone(key)
}

// current is an object as this batch has left it so far; nil if there is none.
func (r *Registry) current(b *batch, key api.Key) (staged, error) {
	if s, ok := b.staged[key]; ok {
		return s, nil
	}
	record, ok := r.config.Journal.Hub().Get(key)
	if !ok {
		return staged{}, nil
	}
	object, err := record.Object()
	return staged{object: object, version: record.Seq}, err
}

// stage applies one change to the batch, or says why not.
func (r *Registry) stage(b *batch, c command.Change) (api.Key, api.Object, error) {
	key := c.Key
	if c.Op == command.Create && key.Name == "" && c.Object.GetGenerateName() != "" {
		c.Object, key.Name = r.name(b, key, c.Object)
	}
	was, err := r.current(b, key)
	if err != nil {
		return key, nil, apierrors.NewInternalError(fmt.Errorf("read %s: %w", key, err))
	}
	if c.Op == command.Create {
		object, err := r.create(b, key, was, c.Object)
		return key, object, err
	}
	if was.object == nil {
		return key, nil, gone(key)
	}
	if c.UID != "" && was.object.GetUID() != c.UID {
		return key, nil, conflict(key, fmt.Sprintf("the UID in the precondition (%s) is not that of the object (%s)", c.UID, was.object.GetUID()))
	}
	if c.Version != 0 && was.version != c.Version {
		return key, nil, conflict(key, "the object has been modified; please apply your changes to the latest version and try again")
	}
	switch c.Op {
	case command.Update:
		object, err := r.put(b, key, was, c.Object)
		return key, object, err
	case command.Status:
		object := was.object.DeepCopyObject().(api.Object)
		reflect.ValueOf(object).Elem().FieldByName("Status").Set(reflect.ValueOf(c.Object).Elem().FieldByName("Status"))
		object, err := r.put(b, key, was, object)
		return key, object, err
	case command.Delete:
		if len(was.object.GetFinalizers()) > 0 {
			object, err := r.mark(b, key, was)
			return key, object, err
		}
		return key, r.remove(b, key, was), nil
	case command.Purge:
		return key, r.remove(b, key, was), nil
	}
	return key, nil, apierrors.NewBadRequest(fmt.Sprintf("%s: unknown operation %d", key, c.Op))
}

func (r *Registry) create(b *batch, key api.Key, was staged, object api.Object) (api.Object, error) {
	if was.object != nil {
		return nil, apierrors.NewAlreadyExists(group(key), key.Name)
	}
	if key.Namespace != "" {
		if err := r.mayCreateIn(b, key); err != nil {
			return nil, err
		}
	}
	object = object.DeepCopyObject().(api.Object)
	if object.GetUID() == "" {
		object.SetUID(r.work.NewUID())
	}
	if stamp := object.GetCreationTimestamp(); stamp.IsZero() {
		object.SetCreationTimestamp(metav1.NewTime(r.work.Now().Truncate(time.Second)))
	}
	if node, ok := object.(*corev1.Node); ok && node.Spec.PodCIDR == "" {
		cidr, err := r.podCIDR(b)
		if err != nil {
			return nil, err
		}
		node.Spec.PodCIDR, node.Spec.PodCIDRs = cidr, []string{cidr}
	}
	return r.put(b, key, was, object)
}

// put stages object as the new state of key.
func (r *Registry) put(b *batch, key api.Key, was staged, object api.Object) (api.Object, error) {
	value, err := api.Encode(object)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("encode %s: %w", key, err))
	}
	if was.object != nil {
		if was.value == nil {
			if was.value, err = api.Encode(was.object); err != nil {
				return nil, apierrors.NewInternalError(fmt.Errorf("encode %s: %w", key, err))
			}
		}
		if bytes.Equal(value, was.value) {
			return was.object, nil // as it stands already
		}
	}
	change := journal.Change{
		Key: key, Value: r.config.Seal(key, value), Index: api.Indexes(object), Frees: object.GetDeletionTimestamp() != nil,
	}
	switch err := journal.Check(change); { // it would refuse the whole batch, every time
	case err != nil:
		return nil, apierrors.NewBadRequest(err.Error())
	case len(value) > objectBytes:
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("%s has %d bytes, at most %d are stored", key, len(value), objectBytes))
	case b.tight && !change.Frees:
		return nil, insufficientStorage()
	case b.size+len(value) > entryBytes:
		return nil, apierrors.NewTooManyRequests(fmt.Sprintf("%s: the writes asked for with it are too large to be stored at once; try again", key), retryAfter)
	}
	version := b.add(change)
	object = object.DeepCopyObject().(api.Object)
	object.SetResourceVersion(strconv.FormatUint(version, 10))
	b.staged[key] = staged{object, value, version}
	return object, nil
}

// mark stages key as deleted; it stays until its finalizers are gone.
func (r *Registry) mark(b *batch, key api.Key, was staged) (api.Object, error) {
	object := was.object.DeepCopyObject().(api.Object)
	if object.GetDeletionTimestamp() == nil {
		now := metav1.NewTime(r.work.Now().Truncate(time.Second))
		object.SetDeletionTimestamp(&now)
	}
	object.SetDeletionGracePeriodSeconds(new(int64))
	return r.put(b, key, was, object)
}

// remove stages the end of key.
func (r *Registry) remove(b *batch, key api.Key, was staged) api.Object {
	version := b.add(journal.Change{Key: key})
	b.staged[key] = staged{version: version}
	object := was.object.DeepCopyObject().(api.Object)
	object.SetResourceVersion(strconv.FormatUint(version, 10))
	return object
}

// add numbers a change.
func (b *batch) add(c journal.Change) uint64 {
	b.entry.Changes = append(b.entry.Changes, c)
	b.size += len(c.Value) + len(c.Key.Name) + len(c.Key.Namespace)
	return b.entry.Base + uint64(len(b.entry.Changes))
}

// mayCreateIn refuses a namespace that is not there or is going away.
func (r *Registry) mayCreateIn(b *batch, key api.Key) error {
	ns, err := r.current(b, api.Key{Resource: "namespaces", Name: key.Namespace})
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("read namespace %s: %w", key.Namespace, err))
	}
	if ns.object == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, key.Namespace)
	}
	if ns.object.GetDeletionTimestamp() == nil {
		return nil
	}
	err = apierrors.NewForbidden(group(key), key.Name, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", key.Namespace))
	details := err.(*apierrors.StatusError).ErrStatus.Details
	details.Causes = append(details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", key.Namespace), Field: "metadata.namespace",
	})
	return err
}

// name completes a generateName as Kubernetes does: five characters without vowels.
func (r *Registry) name(b *batch, key api.Key, object api.Object) (api.Object, string) {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	const tries = 8
	for range tries {
		uid := r.work.NewUID()
		suffix := []byte(uid[len(uid)-5:]) // random hexadecimal digits
		for i, c := range []byte(uid[:5]) {
			suffix[i] = letters[(hex(suffix[i])<<4|hex(c))%len(letters)]
		}
		key.Name = api.GeneratedName(object.GetGenerateName(), string(suffix))
		if was, err := r.current(b, key); err == nil && was.object == nil {
			break
		}
	}
	object = object.DeepCopyObject().(api.Object)
	object.SetName(key.Name)
	return object, key.Name
}

func hex(c byte) int {
	if c >= 'a' {
		return int(c-'a') + 10
	}
	return int(c - '0')
}

// podCIDR is the lowest part of the cluster's pod range that no node has.
func (r *Registry) podCIDR(b *batch) (string, error) {
	const bits = 24
	taken := map[string]bool{}
	for _, record := range r.config.Journal.Hub().List("nodes", "") {
		object, err := record.Object()
		if err != nil {
			return "", apierrors.NewInternalError(err)
		}
		taken[object.(*corev1.Node).Spec.PodCIDR] = true
	}
	for _, s := range b.staged {
		if node, ok := s.object.(*corev1.Node); ok {
			taken[node.Spec.PodCIDR] = true
		}
	}
	all := r.config.PodCIDR.Masked()
	base := all.Addr().As4()
	for n := range 1 << max(bits-all.Bits(), 0) {
		a := base
		a[0] |= byte(n >> 16)
		a[1] |= byte(n >> 8)
		a[2] |= byte(n)
		if cidr := netip.PrefixFrom(netip.AddrFrom4(a), bits).String(); !taken[cidr] {
			return cidr, nil
		}
	}
	return "", apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "", fmt.Errorf("no free /%d is left in the pod range %s; start the first agent with a larger --pod-cidr", bits, all))
}

func group(k api.Key) schema.GroupResource { return schema.ParseGroupResource(k.Resource) }

func gone(k api.Key) error { return apierrors.NewNotFound(group(k), k.Name) }

func conflict(k api.Key, why string) error {
	return apierrors.NewConflict(group(k), k.Name, errors.New(why))
}

const noRoomReason metav1.StatusReason = "InsufficientStorage"

func insufficientStorage() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: noRoomReason,
		Message: "the journal's disk is nearly full, only deletes are taken: " + noRoomAdvice,
	}}
}

func status(err error) *metav1.Status {
	if s := apierrors.APIStatus(nil); errors.As(err, &s) {
		out := s.Status()
		return &out
	}
	return &apierrors.NewInternalError(err).ErrStatus
}
