package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"

	"google.golang.org/grpc"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/messages"
)

// Object is a pointer to a Go type of a kind: *corev1.Pod.
type Object interface {
	metav1.Object
	runtime.Object
}

// Objects are those of one kind, in one namespace or in all. It holds nothing
// but that, and is copied freely.
type Objects[T Object] struct {
	client    *Client
	kind      schema.GroupVersionKind
	namespace string
	err       error // T is no kind that this SDK knows
}

// For is where to work on the objects of a kind: For[*corev1.Pod](client).
func For[T Object](c *Client) Objects[T] {
	o := Objects[T]{client: c}
	kinds, _, err := scheme.ObjectKinds(blank[T]())
	if err != nil {
		o.err = fmt.Errorf("sdk.For[%s]: %w", reflect.TypeFor[T](), errUnknownToThisSDK)
		return o
	}
	o.kind = kinds[0]
	return o
}

// Namespace is the same in one namespace. Writes of an object that names its own
// go without.
func (o Objects[T]) Namespace(name string) Objects[T] {
	o.namespace = name
	return o
}

// blank is an empty object.
func blank[T Object]() T { return reflect.New(reflect.TypeFor[T]().Elem()).Interface().(T) }

func (o Objects[T]) place(name, subresource string) *messages.ObjectPlace {
	return &messages.ObjectPlace{
		Group: o.kind.Group, Version: o.kind.Version, Kind: o.kind.Kind,
		Namespace: o.namespace, Name: name, Subresource: subresource,
	}
}

// of is where an object lives.
func (o Objects[T]) of(object T) Objects[T] {
	if o.namespace == "" {
		o.namespace = object.GetNamespace()
	}
	return o
}

// named says in an error what was tried.
func (o Objects[T]) named(verb, name string) string {
	if o.namespace != "" {
		name = o.namespace + "/" + name
	}
	return verb + " " + o.kind.Kind + " " + name
}

// decoded is the object that an answer holds.
func (o Objects[T]) decoded(ctx context.Context, m *messages.Object) (T, error) {
	warn(ctx, m.Warnings)
	object := blank[T]()
	if err := decode(m.Object, object); err != nil {
		var none T
		return none, fmt.Errorf("the agent's %s: %w", o.kind.Kind, err)
	}
	return object, nil
}

// options encodes options, and refuses what cannot work.
func (o Objects[T]) options(options marshaler) ([]byte, error) {
	if o.err != nil {
		return nil, o.err
	}
	return options.Marshal()
}

// Create stores a new object and returns it as it was stored: complete, with UID
// and version.
func (o Objects[T]) Create(ctx context.Context, object T, options metav1.CreateOptions) (created T, err error) {
	encoded, err := o.options(&options)
	if err != nil {
		return created, err
	}
	data, err := encode(object, o.kind)
	if err != nil {
		return created, err
	}
	in := o.of(object)
	m, err := write(ctx, o.client, in.named("create", object.GetName()+object.GetGenerateName()),
		func(ctx context.Context, id string, _ bool, how ...grpc.CallOption) (*messages.Object, error) {
			return o.client.objects.CreateObject(ctx, &messages.CreateObject{Place: in.place("", ""), Object: data, Options: encoded, Id: id}, how...)
		})
	if err != nil {
		return created, err
	}
	return o.decoded(ctx, m)
}

// Get reads an object.
func (o Objects[T]) Get(ctx context.Context, name string, options metav1.GetOptions) (found T, err error) {
	encoded, err := o.options(&options)
	if err != nil {
		return found, err
	}
	if name == "" {
		return found, fmt.Errorf("get %s: it has no name", o.kind.Kind)
	}
	m, err := o.client.objects.GetObject(ctx, &messages.GetObject{Place: o.place(name, ""), Options: encoded})
	if err != nil {
		return found, o.client.plain(ctx, err)
	}
	return o.decoded(ctx, m)
}

// Update replaces an object, if it still has the version that object has; an
// object without a version replaces any.
func (o Objects[T]) Update(ctx context.Context, object T, options metav1.UpdateOptions) (T, error) {
	return o.update(ctx, object, "", options)
}

// UpdateStatus replaces an object's status, and not its spec.
func (o Objects[T]) UpdateStatus(ctx context.Context, object T, options metav1.UpdateOptions) (T, error) {
	return o.update(ctx, object, "status", options)
}

func (o Objects[T]) update(ctx context.Context, object T, subresource string, options metav1.UpdateOptions) (updated T, err error) {
	encoded, err := o.options(&options)
	if err != nil {
		return updated, err
	}
	data, err := encode(object, o.kind)
	if err != nil {
		return updated, err
	}
	m, err := o.of(object).put(ctx, object.GetName(), subresource, data, encoded)
	if err != nil {
		return updated, err
	}
	return o.decoded(ctx, m)
}

func (o Objects[T]) put(ctx context.Context, name, subresource string, data, options []byte) (*messages.Object, error) {
	return write(ctx, o.client, o.named("update", name),
		func(ctx context.Context, id string, _ bool, how ...grpc.CallOption) (*messages.Object, error) {
			return o.client.objects.UpdateObject(ctx, &messages.UpdateObject{Place: o.place(name, subresource), Object: data, Options: options, Id: id}, how...)
		})
}

// Modify reads an object, has it changed, and writes it back; when somebody else
// wrote it meanwhile it does so again. The object is change's to write on.
func (o Objects[T]) Modify(ctx context.Context, name string, change func(T) error) (modified T, err error) {
	for {
		object, err := o.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return modified, err
		}
		if err := change(object); err != nil {
			return modified, err
		}
		written, err := o.Update(ctx, object, metav1.UpdateOptions{})
		if !errors.Is(err, ErrConflict) || ctx.Err() != nil {
			return written, err
		}
	}
}

// Patch changes a part of an object: [types.JSONPatchType], MergePatchType,
// StrategicMergePatchType or ApplyYAMLPatchType. A sub-resource may be named.
func (o Objects[T]) Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, options metav1.PatchOptions, subresource ...string) (patched T, err error) {
	encoded, err := o.options(&options)
	if err != nil {
		return patched, err
	}
	sub := ""
	if len(subresource) > 0 {
		sub = subresource[0]
	}
	m, err := write(ctx, o.client, o.named("patch", name),
		func(ctx context.Context, id string, _ bool, how ...grpc.CallOption) (*messages.Object, error) {
			return o.client.objects.PatchObject(ctx, &messages.PatchObject{
				Place: o.place(name, sub), Type: string(kind), Patch: patch, Options: encoded, Id: id,
			}, how...)
		})
	if err != nil {
		return patched, err
	}
	return o.decoded(ctx, m)
}

// Apply is server-side apply: the object is made, or what of it is wanted is set
// and owned by options.FieldManager. What is wanted is a configuration of
// client-go's applyconfigurations, or anything else that becomes JSON with the
// wanted fields alone: a T says "empty" of some fields that it leaves out.
func (o Objects[T]) Apply(ctx context.Context, wanted any, options metav1.ApplyOptions, subresource ...string) (applied T, err error) {
	if o.err != nil {
		return applied, o.err
	}
	data, err := json.Marshal(wanted)
	if err != nil {
		return applied, fmt.Errorf("apply %s: %w", o.kind.Kind, err)
	}
	var head metav1.PartialObjectMetadata
	var fields map[string]any
	if err := errors.Join(json.Unmarshal(data, &head), json.Unmarshal(data, &fields)); err != nil {
		return applied, fmt.Errorf("apply %s: %T is no object: %w", o.kind.Kind, wanted, err)
	}
	if head.Name == "" {
		return applied, fmt.Errorf("apply %s: metadata.name is missing", o.kind.Kind)
	}
	if o.namespace == "" {
		o.namespace = head.Namespace
	}
	if head.Kind == "" {
		fields["apiVersion"], fields["kind"] = o.kind.GroupVersion().String(), o.kind.Kind
		if data, err = json.Marshal(fields); err != nil {
			return applied, fmt.Errorf("apply %s: %w", o.kind.Kind, err)
		}
	}
	return o.Patch(ctx, head.Name, types.ApplyPatchType, data, options.ToPatchOptions(), subresource...)
}

// Delete begins the end of an object. That it is gone is seen by a watch or a
// Get.
func (o Objects[T]) Delete(ctx context.Context, name string, options metav1.DeleteOptions) error {
	encoded, err := o.options(&options)
	if err != nil {
		return err
	}
	m, err := write(ctx, o.client, o.named("delete", name),
		func(ctx context.Context, id string, again bool, how ...grpc.CallOption) (*messages.Object, error) {
			m, err := o.client.objects.DeleteObject(ctx, &messages.DeleteObject{Place: o.place(name, ""), Options: encoded, Id: id}, how...)
			if again && errors.Is(o.client.plain(ctx, err), ErrNotFound) {
				return &messages.Object{}, nil // it was there the first time
			}
			return m, err
		})
	if err != nil {
		return err
	}
	warn(ctx, m.Warnings)
	return nil
}

// DeleteCollection does so with all that are selected, each for itself.
func (o Objects[T]) DeleteCollection(ctx context.Context, options metav1.DeleteOptions, selected metav1.ListOptions) error {
	encoded, err := o.options(&options)
	if err != nil {
		return err
	}
	those, err := selected.Marshal()
	if err != nil {
		return err
	}
	_, err = write(ctx, o.client, o.named("delete all", ""),
		func(ctx context.Context, _ string, _ bool, how ...grpc.CallOption) ([]byte, error) {
			parts, err := o.client.objects.DeleteObjects(ctx, &messages.DeleteObjects{Place: o.place("", ""), Options: encoded, Selected: those}, how...)
			if err != nil {
				return nil, err
			}
			data, warnings, err := joined(parts)
			if err == nil {
				warn(ctx, warnings)
			}
			return data, err
		})
	return err
}

// Scale reads how many of an object there are and shall be.
func (o Objects[T]) Scale(ctx context.Context, name string) (*autoscalingv1.Scale, error) {
	encoded, err := o.options(&metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	m, err := o.client.objects.GetObject(ctx, &messages.GetObject{Place: o.place(name, "scale"), Options: encoded})
	if err != nil {
		return nil, o.client.plain(ctx, err)
	}
	s := &autoscalingv1.Scale{}
	return s, decode(m.Object, s)
}

// UpdateScale sets how many of an object there shall be.
func (o Objects[T]) UpdateScale(ctx context.Context, scale *autoscalingv1.Scale, options metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	encoded, err := o.options(&options)
	if err != nil {
		return nil, err
	}
	data, err := encode(scale, autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	if err != nil {
		return nil, err
	}
	if o.namespace == "" {
		o.namespace = scale.Namespace
	}
	m, err := o.put(ctx, scale.Name, "scale", data, encoded)
	if err != nil {
		return nil, err
	}
	warn(ctx, m.Warnings)
	s := &autoscalingv1.Scale{}
	return s, decode(m.Object, s)
}

// List is a part of the objects as they were at one moment, or all.
type List[T Object] struct {
	Items     []T
	Version   string // to watch from
	Continue  string // where the next part begins; "": this was the last
	Remaining *int64 // how many follow, if that is known
}

// List reads the objects that options select, options.Limit at a time; without a
// limit all. [Objects.All] turns the pages by itself.
func (o Objects[T]) List(ctx context.Context, options metav1.ListOptions) (*List[T], error) {
	encoded, err := o.options(&options)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx) // of a list that cannot be read the rest is not wanted
	defer cancel()
	parts, err := o.client.objects.ListObjects(ctx, &messages.ListObjects{Place: o.place("", ""), Options: encoded})
	if err != nil {
		return nil, o.client.plain(ctx, err)
	}
	data, warnings, err := joined(parts)
	if err != nil {
		return nil, o.client.plain(ctx, err)
	}
	warn(ctx, warnings)
	decoded, _, err := codec.Decode(data, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("the agent's list of %s: %w", o.kind.Kind, err)
	}
	head, err := meta.ListAccessor(decoded)
	if err != nil {
		return nil, fmt.Errorf("the agent's list of %s: %w", o.kind.Kind, err)
	}
	l := &List[T]{
		Items:   make([]T, 0, meta.LenList(decoded)),
		Version: head.GetResourceVersion(), Continue: head.GetContinue(), Remaining: head.GetRemainingItemCount(),
	}
	err = meta.EachListItem(decoded, func(item runtime.Object) error {
		object, ok := item.(T)
		if !ok {
			return fmt.Errorf("the agent's list of %s holds a %T", o.kind.Kind, item)
		}
		object.GetObjectKind().SetGroupVersionKind(o.kind)
		l.Items = append(l.Items, object)
		return nil
	})
	return l, err
}

// pageSize is how many objects All reads at a time.
const pageSize = 500

// All reads the objects that options select one after the other, a page at a
// time, all as they were when it began. It ends with the first error; with
// [ErrGone] when the pages were read so slowly that the rest is no longer kept.
func (o Objects[T]) All(ctx context.Context, options metav1.ListOptions) iter.Seq2[T, error] {
	if options.Limit == 0 {
		options.Limit = pageSize
	}
	return func(yield func(T, error) bool) {
		options := options
		for {
			l, err := o.List(ctx, options)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, object := range l.Items {
				if !yield(object, nil) {
					return
				}
			}
			if l.Continue == "" {
				return
			}
			options.Continue = l.Continue
			options.ResourceVersion, options.ResourceVersionMatch = "", "" // the token has them
		}
	}
}
