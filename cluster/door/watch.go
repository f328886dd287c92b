package door

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"

	"github.com/troupe-sh/troupe/cluster/journal"
)

const (
	watchBatch    = 256         // changes taken from the hub at once
	watchBuffer   = 16          // events ready for the client
	bookmarkEvery = time.Minute // how often a client hears how far it is
	bookmarkAhead = 2 * time.Second
	slowest       = time.Minute // a client that takes no event for so long is cut off
)

// Watch implements [storage.Interface].
func (s *kindStorage) Watch(ctx context.Context, path string, opts storage.ListOptions) (watch.Interface, error) {
	namespace, name, err := s.parse(path)
	if err != nil {
		return nil, err
	}
	var seq uint64
	if v := opts.ResourceVersion; v != "" {
		if seq, err = strconv.ParseUint(v, 10, 64); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version %q", v))
		}
	}
	w := &watcher{
		storage: s, namespace: namespace, name: name, predicate: opts.Predicate,
		result: make(chan watch.Event, watchBuffer),
	}
	var state *journal.State // to show first, if any
	announce := false        // that all of it was shown
	switch {
	case opts.SendInitialEvents == nil && seq > 0:
		// A version that never comes is one of another journal: this one was begun anew.
		_, err = s.door.reach(ctx, seq)
	case opts.SendInitialEvents == nil:
		state, err = s.notOlder(ctx, opts.ResourceVersion)
	case *opts.SendInitialEvents:
		state, err = s.notOlder(ctx, opts.ResourceVersion)
		announce = true
	case seq == 0:
		var now *journal.State
		if now, err = s.notOlder(ctx, opts.ResourceVersion); err == nil {
			seq = now.Seq()
		}
	}
	if err != nil {
		return nil, err
	}
	if state != nil {
		seq = state.Seq()
	}
	w.ctx, w.cancel = context.WithCancel(ctx)
	woken := make(chan struct{}, 1)
	w.cursor = s.door.hub.Subscribe(seq, func() { woken <- struct{}{} }, s.kind.GroupResource().String())
	go w.run(state, seq, announce, woken)
	return w, nil
}

// watcher carries the changes of one kind to one client.
type watcher struct {
	storage         *kindStorage
	namespace, name string
	predicate       storage.SelectionPredicate
	cursor          *journal.Cursor
	result          chan watch.Event
	ctx             context.Context //nolint:containedctx // a watch is a request that goes on
	cancel          context.CancelFunc
	slow            *time.Timer
	once            sync.Once
}

// ResultChan implements [watch.Interface].
func (w *watcher) ResultChan() <-chan watch.Event { return w.result }

// Stop implements [watch.Interface].
func (w *watcher) Stop() { w.once.Do(w.cancel) }

func (w *watcher) run(state *journal.State, seq uint64, announce bool, woken <-chan struct{}) {
	defer close(w.result)
	defer w.cancel()
	defer w.cursor.Close()
	w.slow = time.NewTimer(slowest)
	defer w.slow.Stop()

	if state != nil {
		for _, r := range w.storage.records(state, w.namespace, w.name, w.predicate) {
			in, ok, err := w.storage.selected(r, &w.predicate)
			if err != nil {
				w.fail(err)
				return
			}
			if ok && !w.send(watch.Event{Type: watch.Added, Object: in}) {
				return
			}
		}
	}
	if announce && w.predicate.AllowWatchBookmarks && !w.bookmark(seq, true) {
		return
	}
	tick := time.NewTimer(w.nextBookmark())
	defer tick.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
			if w.predicate.AllowWatchBookmarks && !w.bookmark(seq, false) {
				return
			}
			tick.Reset(w.nextBookmark())
			continue
		case <-woken:
		}
		for more := true; more; {
			changes, upTo, err := w.cursor.Next(watchBatch)
			if err != nil {
				w.fail(err)
				return
			}
			for _, c := range changes {
				event, err := w.event(c)
				if err != nil {
					w.fail(err)
					return
				}
				if event.Object != nil && !w.send(event) {
					return
				}
			}
			seq = upTo
			more = len(changes) == watchBatch
		}
	}
}

// nextBookmark is when the client is told next how far it is: now and then, and
// just before its time is over.
func (w *watcher) nextBookmark() time.Duration {
	if end, ok := w.ctx.Deadline(); ok {
		if left := time.Until(end) - bookmarkAhead; left > 0 && left < bookmarkEvery {
			return left
		}
	}
	return bookmarkEvery
}

// event is what a change means to this client; no object: nothing.
func (w *watcher) event(c journal.Changed) (watch.Event, error) {
	record := c.New
	if record == nil {
		record = c.Old
	}
	if w.namespace != "" && record.Key.Namespace != w.namespace || w.name != "" && record.Key.Name != w.name {
		return watch.Event{}, nil
	}
	var was, is runtime.Object
	var wanted, wants bool
	var err error
	switch {
	case c.Old == nil:
	case c.New != nil && w.predicate.Empty():
		wanted = true // without a look: only the new one is shown
	default:
		if was, wanted, err = w.storage.selected(c.Old, &w.predicate); err != nil {
			return watch.Event{}, err
		}
	}
	if c.New != nil {
		if is, wants, err = w.storage.selected(c.New, &w.predicate); err != nil {
			return watch.Event{}, err
		}
	}
	switch {
	case wants && wanted:
		return watch.Event{Type: watch.Modified, Object: is}, nil
	case wants:
		return watch.Event{Type: watch.Added, Object: is}, nil
	case wanted:
		// As it last was, with the version of the change that took it away.
		was.(metav1.Object).SetResourceVersion(strconv.FormatUint(c.Seq, 10))
		return watch.Event{Type: watch.Deleted, Object: was}, nil
	}
	return watch.Event{}, nil
}

func (w *watcher) bookmark(seq uint64, initial bool) bool {
	in := w.storage.new()
	in.(metav1.Object).SetResourceVersion(strconv.FormatUint(seq, 10))
	if initial {
		if err := storage.AnnotateInitialEventsEndBookmark(in); err != nil {
			w.fail(err)
			return false
		}
	}
	return w.send(watch.Event{Type: watch.Bookmark, Object: in})
}

// send gives the client an event; false: it is gone, or too slow.
func (w *watcher) send(e watch.Event) bool {
	select {
	case w.result <- e:
		return true
	case <-w.ctx.Done():
		return false
	default:
	}
	w.slow.Reset(slowest)
	select {
	case w.result <- e:
		return true
	case <-w.ctx.Done():
	case <-w.slow.C:
	}
	return false
}

// fail ends the watch with an error event.
func (w *watcher) fail(err error) {
	status := &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: err.Error()}
	var api apierrors.APIStatus
	switch {
	case errors.Is(err, journal.ErrGone):
		s := apierrors.NewResourceExpired("too old resource version: the changes since then are no longer kept; list again and watch from there").Status()
		status = &s
	case errors.As(err, &api):
		s := api.Status()
		status = &s
	}
	w.send(watch.Event{Type: watch.Error, Object: status})
}
