package command

import (
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/api"
)

// Event is the change that records that something happened to an object, for
// `kubectl describe` and `get events`. What happens again within an hour is
// counted on the same Event: its name follows from object, reason, message and
// component, and last is what stands under that name now, or nil.
func Event(about api.Object, last func(api.Key) api.Object, component, host, kind, reason, message string, now time.Time) Change {
	const longest = 1024 // of a message, as in Kubernetes
	message = strings.ToValidUTF8(message[:min(len(message), longest)], "")
	namespace := about.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	sum := fnv.New64a()
	fmt.Fprintf(sum, "%s\x00%s\x00%s\x00%s\x00%s\x00%s", about.GetUID(), component, host, kind, reason, message)
	key := api.Key{Resource: "events", Namespace: namespace, Name: fmt.Sprintf("%s.%016x", about.GetName(), sum.Sum64())}
	stamp := metav1.NewTime(now.Truncate(time.Second))
	if was, ok := last(key).(*corev1.Event); ok && was != nil {
		again := was.DeepCopy()
		again.Count++
		again.LastTimestamp = stamp
		return Change{Op: Update, Key: key, Object: again}
	}
	k := api.KindOf(about)
	source := corev1.EventSource{Component: component, Host: host}
	return Change{Op: Create, Key: key, Object: &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: key.Name},
		InvolvedObject: corev1.ObjectReference{APIVersion: k.GroupVersion().String(), Kind: k.Kind, Namespace: about.GetNamespace(), Name: about.GetName(), UID: about.GetUID(), ResourceVersion: about.GetResourceVersion()},
		Reason:         reason, Message: message, Type: kind,
		Source: source, ReportingController: component, ReportingInstance: host,
		FirstTimestamp: stamp, LastTimestamp: stamp, Count: 1,
	}}
}
