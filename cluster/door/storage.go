package door

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/storage"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// kindStorage is Kubernetes' storage of one kind. Above it objects have their
// internal version, below it v1; the conversion stands here.
type kindStorage struct {
	door *Door
	kind *api.Kind
	new  func() runtime.Object // internal version
}

var _ storage.Interface = (*kindStorage)(nil)

// Versioner implements [storage.Interface].
func (s *kindStorage) Versioner() storage.Versioner { return storage.APIObjectVersioner{} }

// root is the path under which Kubernetes' machinery names the kind's objects.
func (s *kindStorage) root() string { return "/" + s.kind.GroupResource().String() }

// parse splits such a path.
func (s *kindStorage) parse(path string) (namespace, name string, err error) {
	rest, ok := strings.CutPrefix(path, s.root())
	if !ok || rest != "" && rest[0] != '/' {
		return "", "", storage.NewInternalError(fmt.Errorf("%s is no path of %s", path, s.root()))
	}
	rest = strings.Trim(rest, "/")
	if s.kind.Namespaced {
		namespace, name, _ = strings.Cut(rest, "/")
		return namespace, name, nil
	}
	return "", rest, nil
}

func (s *kindStorage) key(path string) (api.Key, error) {
	namespace, name, err := s.parse(path)
	if err == nil && name == "" {
		err = storage.NewInternalError(fmt.Errorf("%s names no object", path))
	}
	return s.kind.Key(namespace, name), err
}

// internal is an object as Kubernetes' machinery reads it. It shares its parts
// with o: only its own fields may be set.
func (s *kindStorage) internal(o api.Object, into runtime.Object) error {
	if err := api.Scheme.Convert(o, into, nil); err != nil {
		return storage.NewInternalError(fmt.Errorf("convert %s: %w", api.KeyOf(o), err))
	}
	return nil
}

// external is an object as it is written.
func (s *kindStorage) external(in runtime.Object) (api.Object, error) {
	o := s.kind.New()
	if err := api.Scheme.Convert(in, o, nil); err != nil {
		return nil, storage.NewInternalError(fmt.Errorf("convert %s: %w", s.kind.Kind, err))
	}
	o.SetResourceVersion("")
	o.GetObjectKind().SetGroupVersionKind(s.kind.GroupVersionKind)
	return o, nil
}

// Create implements [storage.Interface].
func (s *kindStorage) Create(ctx context.Context, path string, obj, out runtime.Object, _ uint64) error {
	key, err := s.key(path)
	if err != nil {
		return err
	}
	if version, err := s.Versioner().ObjectResourceVersion(obj); err != nil || version != 0 {
		return storage.ErrResourceVersionSetOnCreate
	}
	o, err := s.external(obj)
	if err != nil {
		return err
	}
	created, err := s.door.write(ctx, "create", command.Change{Op: command.Create, Key: key, Object: o})
	if apierrors.IsAlreadyExists(err) {
		return storage.NewKeyExistsError(path, 0)
	}
	if err != nil || out == nil {
		return err
	}
	return s.internal(created, out)
}

// Get implements [storage.Interface].
func (s *kindStorage) Get(ctx context.Context, path string, opts storage.GetOptions, out runtime.Object) error {
	key, err := s.key(path)
	if err != nil {
		return err
	}
	state, err := s.notOlder(ctx, opts.ResourceVersion)
	if err != nil {
		return err
	}
	record, ok := state.Get(key)
	if !ok {
		if opts.IgnoreNotFound {
			return runtime.SetZeroValue(out)
		}
		return storage.NewKeyNotFoundError(path, int64(state.Seq()))
	}
	o, err := record.Object()
	if err != nil {
		return storage.NewCorruptObjError(path, err)
	}
	return s.internal(o.DeepCopyObject().(api.Object), out) // a dry run changes what it gets
}

// Delete implements [storage.Interface].
func (s *kindStorage) Delete(ctx context.Context, path string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, _ runtime.Object, _ storage.DeleteOptions,
) error {
	key, err := s.key(path)
	if err != nil {
		return err
	}
	for again := s.door.again(); ; {
		record, current, err := s.current(path, key)
		if err != nil {
			return err
		}
		if record == nil {
			return storage.NewKeyNotFoundError(path, 0)
		}
		if err := preconditions.Check(path, current); err != nil {
			return err
		}
		if err := validate(ctx, current); err != nil {
			return err
		}
		// Whoever stands above decided that the finalizers are done with, and has
		// not written it: for a Delete the registry would keep the object.
		deleted, err := s.door.write(ctx, "delete", command.Change{Op: command.Purge, Key: key, UID: uid(current), Version: record.Seq})
		switch {
		case err == nil:
			return s.internal(deleted, out)
		case apierrors.IsNotFound(err):
			return storage.NewKeyNotFoundError(path, 0)
		case !apierrors.IsConflict(err):
			return err
		}
		if err := again.wait(ctx, record.Seq); err != nil {
			return err
		}
	}
}

// GuaranteedUpdate implements [storage.Interface].
func (s *kindStorage) GuaranteedUpdate(ctx context.Context, path string, out runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, update storage.UpdateFunc, _ runtime.Object,
) error {
	key, err := s.key(path)
	if err != nil {
		return err
	}
	for proved := false; ; proved = true {
		judged, err := s.update(ctx, path, key, out, ignoreNotFound, preconditions, update)
		if err == nil || !judged {
			return err
		}
		// This machine may be behind, as it is after a start: what is refused must
		// be refused by the present.
		if _, behind := s.door.present(ctx); behind != nil {
			return behind
		}
		// The same request again may fail at what the first has changed: it gets the
		// first one's answer.
		if first := (command.Change{Op: command.Update, Key: key}); s.door.carriedOut(ctx, "update", first) {
			written, err := s.door.write(ctx, "update", first)
			if err != nil {
				return err
			}
			return s.internal(written, out)
		}
		if proved {
			return err
		}
	}
}

// update writes what update makes of the object as this machine has it. An error
// that was judged by that alone is told from one that the registry gave.
func (s *kindStorage) update(ctx context.Context, path string, key api.Key, out runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, update storage.UpdateFunc,
) (judged bool, err error) {
	for again := s.door.again(); ; {
		record, current, err := s.current(path, key)
		if err != nil {
			return false, err
		}
		change := command.Change{Op: command.Create, Key: key}
		verb := "create"
		switch {
		case record != nil:
			verb, change.Op, change.Version, change.UID = "update", command.Update, record.Seq, uid(current)
		case ignoreNotFound:
			current = s.new()
		default:
			return true, storage.NewKeyNotFoundError(path, 0)
		}
		if err := preconditions.Check(path, current); err != nil {
			return true, err
		}
		updated, _, err := update(current, storage.ResponseMeta{ResourceVersion: change.Version})
		if err != nil {
			return true, err
		}
		if change.Object, err = s.external(updated); err != nil {
			return false, err
		}
		written, err := s.door.write(ctx, verb, change)
		switch {
		case err == nil:
			return false, s.internal(written, out)
		case apierrors.IsNotFound(err) && record != nil:
			return false, storage.NewKeyNotFoundError(path, 0)
		case !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err):
			return false, err
		}
		if err := again.wait(ctx, change.Version); err != nil {
			return false, err
		}
	}
}

// current is an object as this machine has it, and a copy of it that may be changed.
func (s *kindStorage) current(path string, key api.Key) (*journal.Record, runtime.Object, error) {
	record, ok := s.door.hub.Get(key)
	if !ok {
		return nil, nil, nil
	}
	o, err := record.Object()
	if err != nil {
		return nil, nil, storage.NewCorruptObjError(path, err)
	}
	in := s.new()
	return record, in, s.internal(o.DeepCopyObject().(api.Object), in)
}

func uid(in runtime.Object) (u types.UID) {
	if m, ok := in.(metav1.Object); ok {
		u = m.GetUID()
	}
	return u
}

// retry waits between attempts of a write that met another's.
type retry struct {
	door  *Door
	seen  uint64
	tries int
}

func (d *Door) again() *retry { return &retry{door: d} }

const behindWait = 10 * time.Millisecond

// wait returns at once, unless the state that was tried is the one that failed
// already: then this machine is behind the registry.
func (r *retry) wait(ctx context.Context, tried uint64) error {
	r.tries++
	stale := r.tries > 1 && tried == r.seen
	r.seen = tried
	if stale {
		select {
		case <-ctx.Done():
		case <-time.After(behindWait):
		}
	}
	if ctx.Err() != nil {
		return apierrors.NewTimeoutError("others wrote the object each time before this could be; try again", 1)
	}
	return nil
}

// notOlder is a state that reaches at least to version: "" the present one,
// "0" any.
func (s *kindStorage) notOlder(ctx context.Context, version string) (*journal.State, error) {
	switch version {
	case "":
		return s.door.present(ctx)
	case "0":
		return s.door.any()
	}
	seq, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version %q", version))
	}
	return s.door.reach(ctx, seq)
}

const reachWait = 3 * time.Second

// reach waits until this machine's state has come to seq.
func (d *Door) reach(ctx context.Context, seq uint64) (*journal.State, error) {
	if s := d.hub.Snapshot(); s.Seq() >= seq {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	woken := make(chan struct{}, 1)
	cursor := d.hub.Subscribe(d.hub.Seq(), func() { woken <- struct{}{} })
	defer cursor.Close()
	for {
		select {
		case <-ctx.Done():
			return nil, storage.NewTooLargeResourceVersionError(seq, d.hub.Seq(), 1)
		case <-woken:
		}
		for {
			changes, _, err := cursor.Next(watchBatch)
			if err != nil && !errors.Is(err, journal.ErrGone) {
				return nil, err
			}
			if s := d.hub.Snapshot(); s.Seq() >= seq {
				return s, nil
			}
			if len(changes) < watchBatch {
				break
			}
		}
	}
}

// ReadinessCheck implements [storage.Interface].
func (s *kindStorage) ReadinessCheck() error {
	_, err := s.door.any()
	return err
}

// GetCurrentResourceVersion implements [storage.Interface].
func (s *kindStorage) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	state, err := s.door.present(ctx)
	if err != nil {
		return 0, err
	}
	return state.Seq(), nil
}

// Stats implements [storage.Interface].
func (s *kindStorage) Stats(context.Context) (storage.Stats, error) {
	return storage.Stats{ObjectCount: int64(len(s.door.hub.List(s.kind.GroupResource().String(), "")))}, nil
}

// RequestWatchProgress implements [storage.Interface]: watches here are never behind.
func (s *kindStorage) RequestWatchProgress(context.Context) error { return nil }

// EnableResourceSizeEstimation implements [storage.Interface].
func (s *kindStorage) EnableResourceSizeEstimation(storage.KeysFunc) error { return nil }

// CompactRevision implements [storage.Interface].
func (s *kindStorage) CompactRevision() int64 { return 0 }
