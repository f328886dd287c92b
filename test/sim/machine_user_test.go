package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/troupe-sh/troupe/actors"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// user wants things, and remembers what he was told.
type user struct {
	m       *machine
	w       *World
	ids     int
	pending map[string]bool // what an answer is awaited about
	wants   map[api.Key]*wish
	missing []string // images that nobody has loaded yet
	loaded  map[string]bool
	cordon  bool
	emptied map[string]int // namespaces, how often they were deleted
}

// wish is what the user was told about one object.
type wish struct {
	uid      string
	gone     bool
	any      bool // others may do with it what they like by now
	image    string
	policy   corev1.RestartPolicy
	replicas int32
	value    string
}

func newUser(m *machine) *user {
	return &user{m: m, w: m.w, pending: map[string]bool{}, wants: map[api.Key]*wish{}, loaded: map[string]bool{}, emptied: map[string]int{}}
}

func pick[T any](w *World, all []T) T { return all[w.Rand().IntN(len(all))] }

// request is one thing that the user wants done.
type request struct {
	about string
	// build makes the changes from what there is; none: it is pointless by now.
	build func(id string) []command.Change
	// told hears of success.
	told func(results []command.Result)
	left int // attempts
}

// do carries out a request unless another about the same is under way.
func (u *user) do(r request) {
	if u.pending[r.about] {
		return
	}
	u.pending[r.about] = true
	r.left = 20
	u.attempt(r)
}

func (u *user) done(r request) { delete(u.pending, r.about) }

func (u *user) attempt(r request) {
	u.ids++
	id := fmt.Sprintf("user#%d", u.ids)
	changes := r.build(id)
	if len(changes) == 0 || r.left == 0 {
		u.done(r)
		return
	}
	r.left--
	u.w.Note("user: %s %s", id, r.about)
	u.ask(&command.Commit{ID: id, Actor: "user", Changes: changes}, r)
}

// ask sends a commit, and again under its ID until the answer is certain.
func (u *user) ask(c *command.Commit, r request) {
	again := u.w.AfterFunc(3*time.Second, func() { u.ask(c, r) })
	u.m.answers[c.ID] = func(m any) {
		a := m.(*command.Committed)
		if errors.Is(a.Err, journal.ErrUnknownOutcome) {
			return // asked again in a while
		}
		again()
		delete(u.m.answers, c.ID)
		u.answered(c, a, r)
	}
	if u.m.host.Up() {
		u.m.host.Send("user/client", ask{c})
	}
}

func (u *user) answered(c *command.Commit, a *command.Committed, r request) {
	if a.Err != nil {
		u.m.audit.refused(c.ID)
		u.w.AfterFunc(time.Second, func() { u.attempt(r) })
		return
	}
	for i, result := range a.Results {
		err := result.Err
		switch {
		case err == nil:
			u.m.audit.acknowledged(c.Changes[i], result.Object)
			continue
		case i == 0:
			u.m.audit.refused(c.ID)
		}
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
			u.w.AfterFunc(time.Second, func() { u.attempt(r) })
			return
		}
		u.w.Note("user: %s %s: %v", c.ID, r.about, err)
		u.done(r)
		return
	}
	if r.told != nil {
		r.told(a.Results)
	}
	u.done(r)
}

// ask is what the user's client is sent.
type ask struct{ commit *command.Commit }

// startClient starts what carries the user's commits to the registry.
func (m *machine) startClient() {
	m.client = m.tree(supervise.Group("user", supervise.OneForOne, often, supervise.Leaf("client", "", func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			switch msg := ctx.Message().(type) {
			case ask:
				ctx.Request(ctx.ActorSystem().NewLocalPID(actors.RegistryPath), msg.commit)
			case *command.Committed:
				if answer := m.answers[msg.ID]; answer != nil {
					answer(msg)
				}
			}
		})
	})))
}

func (u *user) get(key api.Key) api.Object {
	record, ok := u.m.journal.Hub().Get(key)
	if !ok {
		return nil
	}
	return u.m.audit.object(record)
}

// act does one thing.
func (u *user) act() {
	switch u.w.Rand().IntN(22) {
	case 0, 1, 2:
		u.createController()
	case 3, 4, 5:
		u.createPod()
	case 6, 7:
		u.scale()
	case 8:
		u.deleteController()
	case 9, 10, 11:
		u.deletePod()
	case 12:
		u.relabel()
	case 13:
		u.adoptable()
	case 14:
		u.setUnschedulable(!u.cordon)
	case 15:
		u.createNamespace()
	case 16:
		u.deleteNamespace()
	case 17:
		u.load()
	case 18:
		u.note()
	case 19:
		u.otherNode()
	case 20:
		u.note()
	case 21:
		u.forget()
	}
}

func (u *user) image() string {
	names := []string{"app:1", "app:1", "app:1", "deaf:1", "slow:1", "done:1", "fail:1", "oom:1", "bad:1", sick}
	if u.w.Rand().IntN(8) == 0 {
		name := fmt.Sprintf("late:%d", u.w.Rand().IntN(3))
		if !u.loaded[name] && !slices.Contains(u.missing, name) {
			u.missing = append(u.missing, name)
		}
		return name
	}
	return pick(u.w, names)
}

func (u *user) namespace() string {
	var all []string
	for _, key := range u.keys("namespaces") {
		all = append(all, key.Name)
	}
	return pick(u.w, append(all, "default", "default", "default"))
}

// keys are the objects of a resource that the user made and has not deleted.
func (u *user) keys(resource string) (keys []api.Key) {
	for _, key := range slices.SortedFunc(maps.Keys(u.wants), api.Key.Compare) {
		if key.Resource == resource && !u.wants[key].gone {
			keys = append(keys, key)
		}
	}
	return keys
}

// create makes an object with the request's ID on it, so that it can be counted.
func (u *user) create(object api.Object, want wish) {
	key := api.KeyOf(object)
	if was := u.wants[key]; was != nil && !was.gone {
		return
	}
	emptied := 0
	u.do(request{about: key.String(), build: func(id string) []command.Change {
		emptied = u.emptied[key.Namespace]
		object := object.DeepCopyObject().(api.Object)
		object.SetAnnotations(map[string]string{madeBy: id})
		prepared, err := api.Prepare(object)
		if err != nil {
			u.w.Failf("%v", err)
		}
		return []command.Change{{Op: command.Create, Key: key, Object: prepared}}
	}, told: func(results []command.Result) {
		want.uid = string(results[0].Object.GetUID())
		want.any = emptied != u.emptied[key.Namespace] // its namespace was deleted before this was heard
		u.wants[key] = &want
	}})
}

// update changes an object that is as the user knows it.
func (u *user) update(key api.Key, change func(api.Object), told func(*wish)) {
	u.do(request{about: key.String(), build: func(id string) []command.Change {
		was := u.get(key)
		if was == nil {
			return nil
		}
		object := was.DeepCopyObject().(api.Object)
		change(object)
		return []command.Change{{Op: command.Update, Key: key, Object: object, UID: was.GetUID(), Version: u.m.audit.version(was)}}
	}, told: func([]command.Result) {
		if want := u.wants[key]; want != nil {
			told(want)
		}
	}})
}

// remove begins the deletion of an object, as the door does.
func (u *user) remove(key api.Key, grace *int64, change func(api.Object), told func()) {
	u.do(request{about: key.String(), build: func(string) []command.Change {
		was := u.get(key)
		if was == nil {
			return nil
		}
		object := was.DeepCopyObject().(api.Object)
		change(object)
		updated, gone := api.BeginDelete(object, grace, u.w.Now())
		c := command.Change{Op: command.Update, Key: key, Object: updated, UID: was.GetUID(), Version: u.m.audit.version(was)}
		if gone {
			c.Op, c.Object = command.Delete, nil
		}
		return []command.Change{c}
	}, told: func([]command.Result) {
		if want := u.wants[key]; want != nil {
			want.gone = true
		}
		told()
	}})
}

func (u *user) template(name, image string, policy corev1.RestartPolicy) corev1.PodTemplateSpec {
	grace := 1 + int64(u.w.Rand().IntN(12))
	c := corev1.Container{Name: "c", Image: image, ImagePullPolicy: pick(u.w, []corev1.PullPolicy{corev1.PullIfNotPresent, corev1.PullIfNotPresent, corev1.PullAlways})}
	u.probed(&c)
	if u.w.Rand().IntN(4) == 0 {
		c.Lifecycle = &corev1.Lifecycle{PreStop: hook("/before")}
	}
	if u.w.Rand().IntN(4) == 0 {
		c.Lifecycle = &corev1.Lifecycle{PostStart: hook("/after")}
	}
	t := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			RestartPolicy: policy, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{c},
		},
	}
	u.configure(&t.Spec)
	return t
}

func hook(path string) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(80)}}
}

// probed lets some containers be asked how they are.
func (u *user) probed(c *corev1.Container) {
	often := int32(1 + u.w.Rand().IntN(4))
	probe := func(path string) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(80)}},
			PeriodSeconds: often, FailureThreshold: int32(1 + u.w.Rand().IntN(3)),
		}
	}
	if u.w.Rand().IntN(4) == 0 {
		c.StartupProbe = probe("/startup")
		c.StartupProbe.FailureThreshold = 30
	}
	if u.w.Rand().IntN(3) == 0 {
		c.ReadinessProbe = probe("/ready")
	}
	if c.Image == sick || u.w.Rand().IntN(3) == 0 {
		c.LivenessProbe = probe("/live")
	}
}

// configure lets a pod take what a ConfigMap says, into a file or its
// environment. Perhaps there is no such ConfigMap yet.
func (u *user) configure(p *corev1.PodSpec) {
	which := corev1.LocalObjectReference{Name: u.configMap()}
	if u.w.Rand().IntN(4) == 0 {
		p.Volumes = []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: which}}},
			{Name: "self", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "app", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.labels['app']"}},
			}}}},
		}
	}
	if u.w.Rand().IntN(4) == 0 {
		p.Containers[0].Env = []corev1.EnvVar{{Name: "V", ValueFrom: &corev1.EnvVarSource{
			ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: which, Key: "v"},
		}}}
	}
}

func (u *user) configMap() string { return fmt.Sprintf("cm%d", u.w.Rand().IntN(2)) }

func (u *user) createController() {
	name := fmt.Sprintf("rc%d", u.w.Rand().IntN(3))
	n, image := int32(u.w.Rand().IntN(5)), u.image()
	t := u.template(name, image, corev1.RestartPolicyAlways)
	if u.w.Rand().IntN(4) == 0 {
		t.Spec.InitContainers = []corev1.Container{initial("init", "prep:1"), sidecar("first", "app:1")}
	}
	u.create(&corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace(), Name: name},
		Spec:       corev1.ReplicationControllerSpec{Replicas: &n, Selector: map[string]string{"app": name}, Template: &t},
	}, wish{image: image, replicas: n})
}

func (u *user) createPod() {
	policy := pick(u.w, []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure})
	name, image := fmt.Sprintf("pod%d", u.w.Rand().IntN(4)), u.image()
	t := u.template(name, image, policy)
	if u.w.Rand().IntN(3) == 0 { // two containers
		side := t.Spec.Containers[0]
		side.Name, side.Image = "side", "app:1"
		t.Spec.Containers = append(t.Spec.Containers, side)
	}
	for i := range u.w.Rand().IntN(4) {
		c := initial(fmt.Sprintf("init%d", i), pick(u.w, []string{"prep:1", "prep:1", "prep:1", "done:1", "fail:1"}))
		if u.w.Rand().IntN(3) == 0 {
			c = sidecar(fmt.Sprintf("side%d", i), pick(u.w, []string{"app:1", "slow:1", "deaf:1", "fail:1"}))
		}
		t.Spec.InitContainers = append(t.Spec.InitContainers, c)
	}
	if u.w.Rand().IntN(6) == 0 {
		seconds := 5 + int64(u.w.Rand().IntN(90))
		t.Spec.ActiveDeadlineSeconds = &seconds
	}
	u.create(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace(), Name: name, Labels: map[string]string{"pod": name}},
		Spec:       t.Spec,
	}, wish{image: image, policy: policy})
}

func initial(name, image string) corev1.Container {
	return corev1.Container{Name: name, Image: image, ImagePullPolicy: corev1.PullIfNotPresent}
}

func sidecar(name, image string) corev1.Container {
	c, always := initial(name, image), corev1.ContainerRestartPolicyAlways
	c.RestartPolicy = &always
	return c
}

// hopeless tells whether a pod has an init container that cannot do its work,
// or a sidecar that ends again and again.
func hopeless(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Image == "fail:1" })
}

func (u *user) scale() {
	keys := u.keys("replicationcontrollers")
	if len(keys) == 0 {
		return
	}
	n := int32(u.w.Rand().IntN(6))
	u.update(pick(u.w, keys), func(o api.Object) {
		rc := o.(*corev1.ReplicationController)
		rc.Spec.Replicas = &n
		rc.Generation++
	}, func(want *wish) { want.replicas = n })
}

func (u *user) deleteController() {
	keys := u.keys("replicationcontrollers")
	if len(keys) == 0 {
		return
	}
	finalizer := pick(u.w, []string{"", metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents})
	u.remove(pick(u.w, keys), nil, func(o api.Object) {
		if finalizer != "" && o.GetDeletionTimestamp() == nil {
			o.SetFinalizers(append(o.GetFinalizers(), finalizer))
		}
	}, func() {})
}

// deletePod deletes any pod, be it the user's or a controller's.
func (u *user) deletePod() {
	all := u.m.journal.Hub().List("pods", "")
	if len(all) == 0 {
		return
	}
	record := pick(u.w, all)
	uid := u.m.audit.object(record).GetUID()
	var grace *int64
	switch u.w.Rand().IntN(4) {
	case 0:
		grace = new(int64)
	case 1:
		g := int64(u.w.Rand().IntN(20))
		grace = &g
	}
	if grace != nil && *grace == 0 {
		u.m.audit.forced[uid] = true
	}
	key := record.Key
	u.remove(key, grace, func(api.Object) {}, func() {})
}

// relabel takes a pod away from its controller, or gives it back.
func (u *user) relabel() {
	var keys []api.Key
	for _, record := range u.m.journal.Hub().List("pods", "") {
		if u.m.audit.object(record).GetLabels()["app"] != "" {
			keys = append(keys, record.Key)
		}
	}
	if len(keys) == 0 {
		return
	}
	u.update(pick(u.w, keys), func(o api.Object) {
		l := o.GetLabels()
		if old := l["was"]; old != "" {
			l["app"], l["was"] = old, ""
		} else {
			l["app"], l["was"] = "free", l["app"]
		}
	}, func(want *wish) { want.any = true })
}

// adoptable gives a bare pod the labels that a controller looks for.
func (u *user) adoptable() {
	if keys := u.keys("pods"); len(keys) > 0 {
		name := fmt.Sprintf("rc%d", u.w.Rand().IntN(3))
		key := pick(u.w, keys)
		u.wants[key].any = true
		u.update(key, func(o api.Object) { o.SetLabels(map[string]string{"app": name}) }, func(*wish) {})
	}
}

func (u *user) setUnschedulable(yes bool) {
	u.cordon = yes
	u.update(api.Key{Resource: "nodes", Name: nodeName}, func(o api.Object) { o.(*corev1.Node).Spec.Unschedulable = yes }, func(*wish) {})
}

func (u *user) createNamespace() {
	name := fmt.Sprintf("ns%d", u.w.Rand().IntN(2))
	u.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, wish{})
}

func (u *user) deleteNamespace() {
	keys := u.keys("namespaces")
	if len(keys) == 0 {
		return
	}
	ns := pick(u.w, keys)
	u.remove(ns, nil, func(api.Object) {}, func() {
		u.emptied[ns.Name]++
		for key, want := range u.wants {
			if key.Namespace == ns.Name {
				want.gone = true
			}
		}
	})
}

// load brings an image that was missing: by an import, or to its registry.
func (u *user) load() {
	if len(u.missing) == 0 || !u.m.host.Up() {
		return
	}
	name := u.missing[0]
	u.missing = u.missing[1:]
	u.loaded[name] = true
	if u.w.Rand().IntN(2) == 0 {
		u.w.Note("user: push %s", name)
		u.m.runtime.Offer(name, fake.Offer{})
		return // whoever waits for it tries again
	}
	u.w.Note("user: load %s", name)
	u.m.runtime.AddImage(name, fake.Behaviour{})
	u.m.host.Send(actors.ImagesPath, pod.ImagesLoaded{})
}

// note writes something that nobody but the user changes.
func (u *user) note() {
	key := api.Key{Resource: api.ConfigMaps, Namespace: u.namespace(), Name: u.configMap()}
	value := fmt.Sprint(u.w.Rand().IntN(1000))
	if want := u.wants[key]; want == nil || want.gone {
		u.createConfigMap(key, value)
		return
	}
	u.update(key, func(o api.Object) { o.(*corev1.ConfigMap).Data = map[string]string{"v": value} }, func(want *wish) { want.value = value })
}

func (u *user) createConfigMap(key api.Key, value string) {
	u.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Data: map[string]string{"v": value}}, wish{value: value})
}

// forget deletes a ConfigMap, whoever needs it.
func (u *user) forget() {
	if keys := u.keys(api.ConfigMaps); len(keys) > 0 {
		u.remove(pick(u.w, keys), nil, func(api.Object) {}, func() {})
	}
}

// provide makes the ConfigMaps that pods and controllers refer to, and that are
// not there.
func (u *user) provide() {
	missing := map[api.Key]bool{}
	for _, resource := range []string{"pods", "replicationcontrollers"} {
		for _, record := range u.m.journal.Hub().List(resource, "") {
			p := &corev1.Pod{}
			switch o := u.m.audit.object(record).(type) {
			case *corev1.Pod:
				p = o
			case *corev1.ReplicationController:
				p.Namespace, p.Spec = o.Namespace, o.Spec.Template.Spec
			}
			for _, key := range api.SourcesOf(p) {
				if u.get(key) == nil {
					missing[key] = true
				}
			}
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(missing), api.Key.Compare) {
		u.createConfigMap(key, "provided")
	}
}

// otherNode makes a Node that no machine stands behind, for its part of the pod range.
func (u *user) otherNode() {
	name := fmt.Sprintf("other%d", u.w.Rand().IntN(3))
	key := api.Key{Resource: "nodes", Name: name}
	if want := u.wants[key]; want != nil && !want.gone {
		u.remove(key, nil, func(api.Object) {}, func() {})
		return
	}
	u.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Unschedulable: true}}, wish{})
}

// rest makes what the user wants possible.
func (u *user) rest() {
	for len(u.missing) > 0 {
		u.load()
	}
	u.w.Until(healing, func() bool { return len(u.pending) == 0 })
	u.provide()
	u.setUnschedulable(false)
}

// restless tells whether something ends again and again.
func (u *user) restless() bool {
	for _, record := range u.m.journal.Hub().List("pods", "") {
		p := u.m.audit.object(record).(*corev1.Pod)
		if runs(p.Spec.Containers[0].Image) && !hopeless(p) && p.Spec.ActiveDeadlineSeconds == nil || terminal(p) {
			continue
		}
		return true
	}
	return false
}

// runs tells whether the containers of an image go on until they are told to end.
func runs(image string) bool {
	b, present := images[image]
	return !present || !b.Exits && b.FailStart == nil && image != sick
}

func terminal(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// unsettled says what is not yet as the user wants it.
func (u *user) unsettled() error {
	if len(u.pending) > 0 {
		return fmt.Errorf("unanswered: %v", sorted(u.pending))
	}
	for _, key := range slices.SortedFunc(maps.Keys(u.wants), api.Key.Compare) {
		if err := u.unlike(key, u.wants[key]); err != nil {
			return err
		}
	}
	return nil
}

func (u *user) unlike(key api.Key, want *wish) error {
	object := u.get(key)
	same := object != nil && string(object.GetUID()) == want.uid
	switch {
	case want.gone && same:
		return fmt.Errorf("%s was deleted and is there", key)
	case want.gone || want.any:
		return nil
	case !same:
		return fmt.Errorf("%s is wanted and not there", key)
	}
	switch o := object.(type) {
	case *corev1.ConfigMap:
		if o.Data["v"] != want.value {
			return fmt.Errorf("%s says %q, the user wrote %q", key, o.Data["v"], want.value)
		}
	case *corev1.ReplicationController:
		return u.controllerUnlike(key, want, o)
	case *corev1.Pod:
		if o.Spec.ActiveDeadlineSeconds != nil {
			if !terminal(o) {
				return fmt.Errorf("%s should have ended, it is %s", key, o.Status.Phase)
			}
			return nil
		}
		if hopeless(o) {
			return nil
		}
		if terminal(o) && want.policy != corev1.RestartPolicyAlways {
			return nil
		}
		if !runs(want.image) && want.policy != corev1.RestartPolicyAlways && want.image == "done:1" && len(o.Spec.Containers) == 1 {
			return fmt.Errorf("%s should have ended, it is %s", key, o.Status.Phase)
		}
		if want.image == sick && len(o.Spec.Containers) == 1 {
			switch s := o.Status.ContainerStatuses; {
			case want.policy == corev1.RestartPolicyNever:
				return fmt.Errorf("%s is sick and was not ended", key)
			case len(s) == 0 || s[0].RestartCount == 0:
				return fmt.Errorf("%s is sick and was not restarted", key)
			}
		}
		if runs(want.image) && !(want.policy != corev1.RestartPolicyAlways && slices.ContainsFunc(o.Status.ContainerStatuses, exited)) {
			return unready(o)
		}
	}
	return nil
}

func (u *user) controllerUnlike(key api.Key, want *wish, rc *corev1.ReplicationController) error {
	if *rc.Spec.Replicas != want.replicas {
		return fmt.Errorf("%s asks for %d pods, the user for %d", key, *rc.Spec.Replicas, want.replicas)
	}
	active, ready := int32(0), int32(0)
	for _, record := range u.m.journal.Hub().List("pods", key.Namespace) {
		p := u.m.audit.object(record).(*corev1.Pod)
		owner := metav1.GetControllerOf(p)
		if owner == nil || owner.UID != rc.UID || terminal(p) || p.DeletionTimestamp != nil {
			continue
		}
		active++
		if unready(p) == nil {
			ready++
		}
		if p.Spec.RestartPolicy != corev1.RestartPolicyAlways || !runs(p.Spec.Containers[0].Image) {
			continue
		}
		if err := unready(p); err != nil {
			return err
		}
	}
	if active != want.replicas {
		return fmt.Errorf("%s has %d active pods, the user wants %d", key, active, want.replicas)
	}
	if rc.Status.Replicas != active || rc.Status.ObservedGeneration != rc.Generation || rc.Status.ReadyReplicas != ready {
		return fmt.Errorf("%s says %+v with %d active pods", key, rc.Status, active)
	}
	return nil
}

func exited(c corev1.ContainerStatus) bool { return c.State.Terminated != nil }

// unready says that a pod does not run, all of it.
func unready(p *corev1.Pod) error {
	ready := p.Status.Phase == corev1.PodRunning && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	if !ready {
		return fmt.Errorf("pod %s/%s is %s and not ready: %+v", p.Namespace, p.Name, p.Status.Phase, p.Status.ContainerStatuses)
	}
	return nil
}
