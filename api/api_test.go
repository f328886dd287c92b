package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/troupe-sh/troupe/api"
)

var (
	start    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	template = &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "nginx"}}},
	}
	owner = &metav1.OwnerReference{
		APIVersion: "v1", Kind: "ReplicationController", Name: "web", UID: "u1",
		Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true),
	}
)

func TestEveryKindIsEncodedAndDecodedUnchanged(t *testing.T) {
	for _, k := range api.Kinds() {
		o := k.New()
		o.SetName("a")
		if k.Namespaced {
			o.SetNamespace("default")
		}
		o.SetUID("u")
		o.SetResourceVersion("77")
		o.SetLabels(map[string]string{"x": "y"})
		data, err := api.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		if o.GetResourceVersion() != "77" || o.GetObjectKind().GroupVersionKind().Kind != "" {
			t.Errorf("%s: Encode changed its argument", k.Kind)
		}
		key := api.KeyOf(o)
		got, err := api.Decode(key, data, 12)
		if err != nil {
			t.Fatal(err)
		}
		want := o.DeepCopyObject().(api.Object)
		want.SetResourceVersion("12")
		want.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", k.Kind, d)
		}
		again, err := api.Encode(got)
		if err != nil {
			t.Fatal(err)
		}
		if string(again) != string(data) {
			t.Errorf("%s: the encoding holds the resourceVersion", k.Kind)
		}
	}
}

func TestDecodeRefusesAnotherKind(t *testing.T) {
	data, err := api.Encode(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Decode(api.Key{Resource: "pods", Name: "a"}, data, 1); err == nil {
		t.Error("a secret was decoded as a pod")
	}
	if _, err := api.Decode(api.Key{Resource: "widgets", Name: "a"}, data, 1); err == nil {
		t.Error("a kind that does not exist was decoded")
	}
}

func FuzzDecode(f *testing.F) {
	p, err := api.NewPod("default", template, owner)
	if err != nil {
		f.Fatal(err)
	}
	data, err := api.Encode(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := api.Decode(api.Key{Resource: "pods", Namespace: "a", Name: "b"}, data, 1)
		if err != nil {
			return
		}
		if _, err := api.Encode(o); err != nil {
			t.Error(err)
		}
	})
}

func TestNewPodIsWhatKubernetesWouldCreate(t *testing.T) {
	p, err := api.NewPod("default", template, owner)
	if err != nil {
		t.Fatal(err)
	}
	if p.GenerateName != "web-" || p.Name != "" || p.Namespace != "default" || p.Labels["app"] != "web" {
		t.Errorf("metadata %+v", p.ObjectMeta)
	}
	if p.Status.Phase != corev1.PodPending || p.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("status %+v", p.Status)
	}
	if p.Spec.RestartPolicy != corev1.RestartPolicyAlways || p.Spec.Containers[0].ImagePullPolicy != corev1.PullAlways ||
		*p.Spec.TerminationGracePeriodSeconds != 30 || p.Spec.DNSPolicy != corev1.DNSClusterFirst {
		t.Errorf("spec is not filled in: %+v", p.Spec)
	}
	if template.Spec.RestartPolicy != "" {
		t.Error("the template was changed")
	}
	if got := api.Indexes(p); !cmp.Equal(got, []string{"owner=u1"}) {
		t.Errorf("indexes %v", got)
	}
	p.Spec.NodeName = "n1"
	if got := api.Indexes(p); !cmp.Equal(got, []string{"node=n1", "owner=u1"}) {
		t.Errorf("indexes %v", got)
	}
	p.OwnerReferences[0].Controller = nil
	if got := api.Indexes(p); !cmp.Equal(got, []string{"node=n1", "orphan=default", "owner=u1"}) {
		t.Errorf("indexes without a controller %v", got)
	}
}

func TestNewPodNamesEveryMistake(t *testing.T) {
	bad := template.DeepCopy()
	bad.Spec.Containers[0].Image = ""
	bad.Spec.Containers[0].Name = "No Name"
	_, err := api.NewPod("default", bad, owner)
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.containers[0].image") || !strings.Contains(err.Error(), "spec.containers[0].name") {
		t.Errorf("got %v", err)
	}
}

func TestBeginDelete(t *testing.T) {
	pod := func(f func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b", Generation: 1},
			Spec:       corev1.PodSpec{NodeName: "n", TerminationGracePeriodSeconds: ptr.To(int64(30))},
		}
		f(p)
		return p
	}
	leaving := func(period int64, more ...func(*corev1.Pod)) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			at := metav1.NewTime(start.Add(time.Duration(period) * time.Second))
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &period
			for _, f := range more {
				f(p)
			}
		})
	}
	finalized := func(p *corev1.Pod) { p.Finalizers = []string{"x/y"} }

	for _, c := range []struct {
		name   string
		in     api.Object
		grace  *int64
		after  time.Duration
		gone   bool
		same   bool
		period int64         // when neither gone nor same
		at     time.Duration // of the deletionTimestamp, from start
	}{
		{name: "a bound pod gets its own grace", in: pod(func(*corev1.Pod) {}), period: 30, at: 30 * time.Second},
		{name: "a bound pod gets the grace asked for", in: pod(func(*corev1.Pod) {}), grace: ptr.To(int64(5)), period: 5, at: 5 * time.Second},
		{name: "negative grace is one second", in: pod(func(*corev1.Pod) {}), grace: ptr.To(int64(-1)), period: 1, at: time.Second},
		{name: "no grace is at once", in: pod(func(*corev1.Pod) {}), grace: ptr.To(int64(0)), gone: true},
		{name: "an unbound pod is gone at once", in: pod(func(p *corev1.Pod) { p.Spec.NodeName = "" }), gone: true},
		{name: "a finished pod is gone at once", in: pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), gone: true},
		{name: "a finalizer keeps a pod", in: pod(finalized), grace: ptr.To(int64(0)), period: 0, at: 0},
		{name: "a second delete changes nothing", in: leaving(30), same: true},
		{name: "grace is never made longer", in: leaving(30), grace: ptr.To(int64(60)), same: true},
		{name: "grace is made shorter from its start", in: leaving(30), grace: ptr.To(int64(10)), after: 3 * time.Second, period: 10, at: 10 * time.Second},
		{name: "an overdue shorter grace is one second", in: leaving(30), grace: ptr.To(int64(10)), after: 20 * time.Second, period: 1, at: 20 * time.Second},
		{name: "grace made zero ends it", in: leaving(30), grace: ptr.To(int64(0)), after: time.Second, gone: true},
		{name: "grace made zero waits for finalizers", in: leaving(30, finalized), grace: ptr.To(int64(0)), after: time.Second, period: 0, at: time.Second},
		{name: "no grace left and no finalizer is gone", in: leaving(0), gone: true},
		{name: "no grace left and a finalizer waits", in: leaving(0, finalized), same: true},
		{name: "a secret is gone at once", in: &corev1.Secret{}, gone: true},
		{name: "a finalizer keeps a secret", in: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"x/y"}}}},
		{name: "a namespace becomes Terminating", in: &corev1.Namespace{Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.in.DeepCopyObject()
			got, gone := api.BeginDelete(c.in, c.grace, start.Add(c.after))
			if d := cmp.Diff(before, c.in); d != "" {
				t.Errorf("its argument changed: %s", d)
			}
			if gone != c.gone {
				t.Fatalf("gone %v", gone)
			}
			if gone {
				return
			}
			if (got == c.in) != c.same {
				t.Fatalf("same %v", got == c.in)
			}
			if c.same {
				return
			}
			if !got.GetDeletionTimestamp().Time.Equal(start.Add(c.at)) {
				t.Errorf("deletionTimestamp %v", got.GetDeletionTimestamp())
			}
			if n, ok := got.(*corev1.Namespace); ok {
				if n.Status.Phase != corev1.NamespaceTerminating {
					t.Errorf("phase %s", n.Status.Phase)
				}
				return
			}
			if *got.GetDeletionGracePeriodSeconds() != c.period {
				t.Errorf("grace %d", *got.GetDeletionGracePeriodSeconds())
			}
		})
	}
}

func BenchmarkNewPod(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := api.NewPod("default", template, owner); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	p, err := api.NewPod("default", template, owner)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := api.Encode(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	p, err := api.NewPod("default", template, owner)
	if err != nil {
		b.Fatal(err)
	}
	p.UID = types.UID("u")
	data, err := api.Encode(p)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := api.Decode(api.KeyOf(p), data, 5); err != nil {
			b.Fatal(err)
		}
	}
}
