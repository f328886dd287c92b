package api

import (
	"fmt"
	"reflect"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

var codec = protobuf.NewSerializer(Scheme, Scheme)

// Encode is the object as it is kept and sent: Kubernetes' protobuf encoding
// of its external version with the usual envelope, without resourceVersion.
func Encode(o Object) ([]byte, error) {
	k := KindOf(o)
	if k == nil {
		return nil, fmt.Errorf("encode %T: no such kind", o)
	}
	c := shallow(o)
	c.SetResourceVersion("")
	c.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	data, err := runtime.Encode(codec, c)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", KeyOf(o), err)
	}
	return data, nil
}

// Decode is the inverse of [Encode] for the object of that key; seq becomes its
// resourceVersion.
func Decode(key Key, value []byte, seq uint64) (Object, error) {
	k := KindFor(key.Resource)
	if k == nil {
		return nil, fmt.Errorf("decode %s: no such kind", key)
	}
	o := k.New()
	got, _, err := codec.Decode(value, nil, o)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", key, err)
	}
	if got != runtime.Object(o) {
		return nil, fmt.Errorf("decode %s: holds a %T", key, got)
	}
	o.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	o.SetResourceVersion(strconv.FormatUint(seq, 10))
	return o, nil
}

// shallow is a copy of o that shares everything below its first level, which
// is enough to set plain fields of its metadata.
func shallow(o Object) Object {
	c := reflect.New(reflect.TypeOf(o).Elem())
	c.Elem().Set(reflect.ValueOf(o).Elem())
	return c.Interface().(Object)
}
