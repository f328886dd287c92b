package door

import (
	"context"
	"fmt"
	"reflect"
	"sort"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// nodeNameField is the one field selector with an index of its own.
const nodeNameField = "spec.nodeName"

// GetList implements [storage.Interface].
func (s *kindStorage) GetList(ctx context.Context, path string, opts storage.ListOptions, list runtime.Object) error {
	namespace, name, err := s.parse(path)
	if err != nil {
		return err
	}
	prefix := s.root() + "/"
	state, after, err := s.page(ctx, prefix, opts)
	if err != nil {
		return err
	}
	items, err := meta.GetItemsPtr(list)
	if err != nil {
		return storage.NewInternalError(err)
	}
	v := reflect.ValueOf(items).Elem()
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))

	records := s.records(state, namespace, name, opts.Predicate)
	if after != "" {
		records = records[sort.Search(len(records), func(i int) bool { return s.position(records[i].Key) > after }):]
	}
	var token string
	var remaining *int64
	for i, r := range records {
		in, ok, err := s.selected(r, &opts.Predicate)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if limit := opts.Predicate.Limit; limit > 0 && int64(v.Len()) == limit {
			token, err = storage.EncodeContinue(prefix+s.position(records[i-1].Key)+"\x00", prefix, int64(state.Seq()))
			if err != nil {
				return storage.NewInternalError(err)
			}
			if opts.Predicate.Empty() {
				n := int64(len(records) - i)
				remaining = &n
			}
			s.door.pins.hold(state)
			break
		}
		v.Set(reflect.Append(v, reflect.ValueOf(in).Elem()))
	}
	return s.Versioner().UpdateList(list, state.Seq(), token, remaining)
}

// position is an object's place in the order of a list, as a client's continue
// token holds it. No namespace contains a tab, and all of their bytes sort
// after it; a name, which stands last, may contain anything.
func (s *kindStorage) position(k api.Key) string {
	if s.kind.Namespaced {
		return k.Namespace + "\t" + k.Name
	}
	return k.Name
}

// page is the state that a list reads, and after which object it goes on.
func (s *kindStorage) page(ctx context.Context, prefix string, opts storage.ListOptions) (state *journal.State, after string, err error) {
	seq, after, err := storage.ValidateListOptions(prefix, s.Versioner(), opts)
	if err != nil {
		return nil, "", err
	}
	if after != "" {
		after = strings.TrimSuffix(strings.TrimPrefix(after, prefix), "\x00")
		if seq == 0 { // a token for whatever is there now
			state, err = s.door.present(ctx)
			return state, after, err
		}
		if state, ok := s.door.pins.at(uint64(seq)); ok {
			return state, after, nil
		}
		return nil, "", expiredPage(prefix, after)
	}
	if seq == 0 {
		state, err = s.notOlder(ctx, opts.ResourceVersion)
		return state, "", err
	}
	state, err = s.door.reach(ctx, uint64(seq))
	if err != nil || state.Seq() == uint64(seq) {
		return state, "", err
	}
	if state, ok := s.door.pins.at(uint64(seq)); ok {
		return state, "", nil
	}
	return nil, "", apierrors.NewResourceExpired(fmt.Sprintf("the list as of resource version %d is no longer kept; list without a version", seq))
}

// expiredPage says that the rest of a list can be had only as it is now, and
// gives the token for that.
func expiredPage(prefix, after string) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	if token, e := storage.EncodeContinue(prefix+after+"\x00", prefix, -1); e == nil {
		err.ErrStatus.Continue = token
	}
	return err
}

// records are those that may match, by the narrowest index there is.
func (s *kindStorage) records(state *journal.State, namespace, name string, p storage.SelectionPredicate) []*journal.Record {
	resource := s.kind.GroupResource().String()
	if name != "" {
		if r, ok := state.Get(s.kind.Key(namespace, name)); ok {
			return []*journal.Record{r}
		}
		return nil
	}
	if p.Field != nil {
		if node, ok := p.Field.RequiresExactMatch(nodeNameField); ok && node != "" {
			var in []*journal.Record
			for _, r := range state.Index(api.OnNode(node), resource) {
				if namespace == "" || r.Key.Namespace == namespace {
					in = append(in, r)
				}
			}
			return in
		}
	}
	return state.List(resource, namespace)
}

// selected is a record's object, if the predicate wants it. Labels are looked
// at first: they need no conversion.
func (s *kindStorage) selected(r *journal.Record, p *storage.SelectionPredicate) (runtime.Object, bool, error) {
	o, err := r.Object()
	if err != nil {
		return nil, false, storage.NewCorruptObjError(r.Key.String(), err)
	}
	return s.selectedObject(o, p)
}

func (s *kindStorage) selectedObject(o api.Object, p *storage.SelectionPredicate) (runtime.Object, bool, error) {
	if p.Label != nil && !p.Label.Matches(labels.Set(o.GetLabels())) {
		return nil, false, nil
	}
	in := s.new()
	if err := s.internal(o, in); err != nil {
		return nil, false, err
	}
	ok, err := p.Matches(in)
	if err != nil {
		return nil, false, storage.NewInternalError(err)
	}
	return in, ok, nil
}
