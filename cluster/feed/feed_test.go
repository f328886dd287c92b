package feed_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/model"
)

type world struct {
	t     *testing.T
	j     *model.Journal
	epoch journal.Epoch
}

func begin(t *testing.T) *world {
	w := &world{t: t, j: model.New(model.Options{Decode: api.Decode})}
	w.j.Leadership(func(l journal.Leadership) { w.epoch = l.Epoch })
	return w
}

func (w *world) write(objects ...api.Object) { w.propose(objects, false) }

func (w *world) remove(objects ...api.Object) { w.propose(objects, true) }

func (w *world) propose(objects []api.Object, gone bool) {
	w.t.Helper()
	e := journal.Entry{Epoch: w.epoch, Base: w.j.Hub().Seq()}
	for _, o := range objects {
		c := journal.Change{Key: api.KeyOf(o)}
		if !gone {
			value, err := api.Encode(o)
			if err != nil {
				w.t.Fatal(err)
			}
			c.Value, c.Index = value, api.Indexes(o)
		}
		e.Changes = append(e.Changes, c)
	}
	if err := w.j.Propose(w.t.Context(), e); err != nil {
		w.t.Fatal(err)
	}
}

func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: node},
	}
}

func node(name, cidr string) *corev1.Node {
	return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: cidr}}
}

func TestPodsOfThisMachineAlone(t *testing.T) {
	w := begin(t)
	w.write(pod("a", "n1"), pod("b", "n2"), pod("c", ""), pod("d", "n1"))
	f := feed.FromHub(w.j.Hub(), "n1")
	pods, seq, err := f.Pods()
	if err != nil || len(pods) != 2 || pods[0].Name != "a" || pods[1].Name != "d" || pods[0].ResourceVersion == "" {
		t.Fatalf("%v, %v", pods, err)
	}
	woken := 0
	c := f.Watch(seq, func() { woken++ })
	defer c.Close()
	w.write(pod("b2", "n2"), node("n1", ""), pod("c", "n1"))
	w.remove(pod("a", "n1"))
	if woken != 1 {
		t.Fatalf("woken %d times before it reads", woken)
	}
	changes, more, err := c.Next(2)
	if err != nil || !more || len(changes) != 1 || changes[0].Pod.Name != "c" || changes[0].Gone {
		t.Errorf("%+v, more %v, %v", changes, more, err)
	}
	changes, more, err = c.Next(2)
	if err != nil || more || len(changes) != 1 || changes[0].Pod.Name != "a" || !changes[0].Gone {
		t.Errorf("%+v, more %v, %v", changes, more, err)
	}
	w.write(pod("e", "n1"))
	if woken != 2 {
		t.Errorf("woken %d times", woken)
	}
}

func TestTheNodeOfThisMachine(t *testing.T) {
	w := begin(t)
	woken := 0
	n := feed.FromHub(w.j.Hub(), "n1").WatchNode(func() { woken++ })
	defer n.Close()
	if _, ok, err := n.Node(); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	for i, cidr := range []string{"10.0.0.0/24", "10.0.1.0/24"} {
		w.write(node("n1", cidr))
		w.write(node("n2", cidr))
		if woken != i+1 {
			t.Errorf("woken %d times, want %d", woken, i+1)
		}
		for range 2 { // also without having been woken
			if got, ok, err := n.Node(); err != nil || !ok || got.Spec.PodCIDR != cidr {
				t.Errorf("%+v, %v, %v", got, ok, err)
			}
		}
	}
}

func TestWhatAPodRefersTo(t *testing.T) {
	w := begin(t)
	f := feed.FromHub(w.j.Hub(), "n1")
	p := pod("a", "n1")
	p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "one"}}}},
	}
	p.Spec.Containers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "env"}}},
		{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}}},
	}}}
	in := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	one := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: in("default", "one"), Data: map[string]string{"k": "1"}}
	secret := func(namespace, name string) *corev1.Secret {
		return &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: in(namespace, name), Data: map[string][]byte{"k": []byte(namespace)}}
	}
	w.write(p, one, secret("default", "pull"), secret("default", "env"), secret("default", "other"), secret("foreign", "none"))
	before, err := f.Sources(p)
	if err != nil || len(before.ConfigMaps) != 1 || len(before.Secrets) != 2 {
		t.Fatalf("%+v, %v", before, err)
	}
	if s, err := before.Secret("pull"); err != nil || string(s.Data["k"]) != "default" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := before.Secret("other"); err == nil || err.Error() != `secret "other" not found` {
		t.Errorf("what it does not refer to: %v", err)
	}
	if _, err := before.ConfigMap("none"); err == nil || err.Error() != `configmap "none" not found` {
		t.Errorf("what is not there: %v", err)
	}

	woken := 0
	c := f.Watch(w.j.Hub().Seq(), func() { woken++ })
	defer c.Close()
	two := one.DeepCopy()
	two.Data["k"] = "2"
	w.write(two)
	w.remove(secret("default", "pull"))
	changes, more, err := c.Next(10)
	if err != nil || more || woken != 1 || len(changes) != 2 || changes[0] != (feed.Change{Source: api.KeyOf(one)}) || changes[1].Source.Name != "pull" {
		t.Errorf("%+v, more %v, %v; woken %d times", changes, more, err, woken)
	}
	after, err := f.Sources(p)
	if err != nil || after.ConfigMaps["one"].Data["k"] != "2" || len(after.Secrets) != 1 || after.Equal(before) || !after.Equal(after) {
		t.Errorf("%+v, %v", after, err)
	}
	if before.ConfigMaps["one"].Data["k"] != "1" {
		t.Error("what was read before has changed")
	}
}
