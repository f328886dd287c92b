package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
)

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Data: map[string]string{"a": "1"}}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "busybox"}}},
	}
}

func controller(name string) *corev1.ReplicationController {
	return &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.ReplicationControllerSpec{
			Replicas: ptr.To(int32(2)),
			Template: &corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
				Spec:       pod(name).Spec,
			},
		},
	}
}

var none = metav1.CreateOptions{}

// must returns v, or fails the test.
func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestObjectsAreCreatedReadChangedAndDeleted(t *testing.T) {
	s := start(t)
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(contentType, func(t *testing.T) {
			ctx := t.Context()
			maps := s.Client(contentType).CoreV1().ConfigMaps("default")
			name := strings.ReplaceAll(contentType[strings.LastIndex(contentType, "/")+1:], ".", "-")
			made := must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap(name), none))
			if made.UID == "" || made.ResourceVersion == "" || made.CreationTimestamp.IsZero() {
				t.Errorf("created without %+v", made.ObjectMeta)
			}
			if _, err := maps.Create(ctx, configMap(name), none); !apierrors.IsAlreadyExists(err) || err.Error() != fmt.Sprintf("configmaps %q already exists", name) {
				t.Errorf("a name twice: %v", err)
			}
			copied := made.DeepCopy()
			copied.Name += "-copy"
			if _, err := maps.Create(ctx, copied, none); err == nil || !strings.Contains(err.Error(), "resourceVersion should not be set") {
				t.Errorf("a create with a version: %v", err)
			}
			made.Data["b"] = "2"
			changed := must[*corev1.ConfigMap](t)(maps.Update(ctx, made, metav1.UpdateOptions{}))
			if changed.Data["b"] != "2" || changed.ResourceVersion == made.ResourceVersion || changed.UID != made.UID {
				t.Errorf("updated to %+v", changed)
			}
			if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "the object has been modified; please apply your changes to the latest version") {
				t.Errorf("an update of an old version: %v", err)
			}
			same := must[*corev1.ConfigMap](t)(maps.Update(ctx, changed, metav1.UpdateOptions{}))
			if same.ResourceVersion != changed.ResourceVersion {
				t.Error("an update that changes nothing made a new version")
			}
			got := must[*corev1.ConfigMap](t)(maps.Get(ctx, name, metav1.GetOptions{}))
			if got.ResourceVersion != changed.ResourceVersion || got.Data["b"] != "2" {
				t.Errorf("read %+v", got)
			}
			for kind, patch := range map[types.PatchType]string{
				types.JSONPatchType:           `[{"op":"add","path":"/data/j","value":"1"}]`,
				types.MergePatchType:          `{"data":{"m":"1","a":null}}`,
				types.StrategicMergePatchType: `{"data":{"s":"1"}}`,
			} {
				if _, err := maps.Patch(ctx, name, kind, []byte(patch), metav1.PatchOptions{}); err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			}
			got = must[*corev1.ConfigMap](t)(maps.Get(ctx, name, metav1.GetOptions{}))
			if got.Data["j"] != "1" || got.Data["m"] != "1" || got.Data["s"] != "1" || got.Data["a"] != "" {
				t.Errorf("patched to %v", got.Data)
			}
			if err := maps.Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions("another")}); !apierrors.IsConflict(err) {
				t.Errorf("delete of another UID: %v", err)
			}
			if err := maps.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			if _, err := maps.Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) || err.Error() != fmt.Sprintf("configmaps %q not found", name) {
				t.Errorf("read after delete: %v", err)
			}
			if err := maps.Delete(ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("delete twice: %v", err)
			}
			if _, err := maps.Update(ctx, got, metav1.UpdateOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("update after delete: %v", err)
			}
		})
	}
}

func TestPodsAreFilledInAndChecked(t *testing.T) {
	s, ctx := start(t), t.Context()
	pods := s.Client("").CoreV1().Pods("default")
	p := pod("")
	p.GenerateName = "web-"
	a := must[*corev1.Pod](t)(pods.Create(ctx, p, none))
	b := must[*corev1.Pod](t)(pods.Create(ctx, p, none))
	if !strings.HasPrefix(a.Name, "web-") || a.Name == b.Name || len(a.Name) != len("web-")+5 {
		t.Errorf("generated names %s, %s", a.Name, b.Name)
	}
	if a.Status.Phase != corev1.PodPending || a.Spec.RestartPolicy != corev1.RestartPolicyAlways || a.Spec.TerminationGracePeriodSeconds == nil {
		t.Errorf("not filled in: %+v", a)
	}
	wrong := pod("Wrong_Name")
	wrong.Spec.Containers[0].Image = ""
	wrong.Spec.RestartPolicy = "Sometimes"
	_, err := pods.Create(ctx, wrong, none)
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) {
		t.Fatalf("a wrong pod: %v", err)
	}
	status = err.(apierrors.APIStatus)
	fields := map[string]bool{}
	for _, c := range status.Status().Details.Causes {
		fields[c.Field] = true
	}
	for _, f := range []string{"metadata.name", "spec.containers[0].image", "spec.restartPolicy"} {
		if !fields[f] {
			t.Errorf("%s is not named in %v", f, err)
		}
	}
	if _, err := pods.Patch(ctx, a.Name, types.MergePatchType, []byte(`{"spec":{"hostNetwork":true}}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a change of what may not change: %v", err)
	}
	unsupported := pod("apart")
	unsupported.Spec.HostUsers = new(bool)
	if _, err := pods.Create(ctx, unsupported, none); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.hostUsers: Forbidden: Troupe does not have this yet") {
		t.Errorf("users of its own: %v", err)
	}
	rc := controller("apart")
	rc.Spec.Template.Spec = unsupported.Spec
	if _, err := s.Client("").CoreV1().ReplicationControllers("default").Create(ctx, rc, none); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.template.spec.hostUsers") {
		t.Errorf("users of a controller's own: %v", err)
	}
}

func TestStatusAndSpecAreChangedApart(t *testing.T) {
	s, ctx := start(t), t.Context()
	pods := s.Client("").CoreV1().Pods("default")
	p := must[*corev1.Pod](t)(pods.Create(ctx, pod("a"), none))
	p.Status.Phase = corev1.PodRunning
	p.Labels["x"] = "y"
	p = must[*corev1.Pod](t)(pods.Update(ctx, p, metav1.UpdateOptions{}))
	if p.Status.Phase != corev1.PodPending || p.Labels["x"] != "y" {
		t.Errorf("update: phase %s, labels %v", p.Status.Phase, p.Labels)
	}
	p.Status.Phase = corev1.PodRunning
	p.Spec.Containers[0].Image = "other"
	p = must[*corev1.Pod](t)(pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}))
	if p.Status.Phase != corev1.PodRunning || p.Spec.Containers[0].Image != "busybox" {
		t.Errorf("status update: phase %s, image %s", p.Status.Phase, p.Spec.Containers[0].Image)
	}
	if err := pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}, none); err != nil {
		t.Fatal(err)
	}
	p = must[*corev1.Pod](t)(pods.Get(ctx, "a", metav1.GetOptions{}))
	if p.Spec.NodeName != "n1" {
		t.Errorf("bound to %q", p.Spec.NodeName)
	}
	onNode := must[*corev1.PodList](t)(pods.List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n1"}))
	if len(onNode.Items) != 1 {
		t.Errorf("%d pods on the node", len(onNode.Items))
	}
	if err := pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n2"}}, none); !apierrors.IsConflict(err) {
		t.Errorf("bound twice: %v", err)
	}
}

func TestScale(t *testing.T) {
	s, ctx := start(t), t.Context()
	controllers := s.Client("").CoreV1().ReplicationControllers("default")
	rc := must[*corev1.ReplicationController](t)(controllers.Create(ctx, controller("web"), none))
	if rc.Generation != 1 || rc.Spec.Selector["app"] != "web" {
		t.Errorf("created %+v", rc)
	}
	scale, err := controllers.GetScale(ctx, "web", metav1.GetOptions{})
	if err != nil || scale.Spec.Replicas != 2 || scale.Status.Selector != "app=web" {
		t.Fatalf("scale %+v: %v", scale, err)
	}
	scale.Spec.Replicas = 5
	if _, err := controllers.UpdateScale(ctx, "web", scale, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	rc = must[*corev1.ReplicationController](t)(controllers.Get(ctx, "web", metav1.GetOptions{}))
	if *rc.Spec.Replicas != 5 || rc.Generation != 2 {
		t.Errorf("%d replicas, generation %d", *rc.Spec.Replicas, rc.Generation)
	}
}

func TestServerSideApplyKnowsWhoOwnsAField(t *testing.T) {
	s, ctx := start(t), t.Context()
	maps := s.Client("").CoreV1().ConfigMaps("default")
	apply := func(manager, value string, force bool) error {
		body, err := json.Marshal(map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "data": map[string]any{"x": value},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = maps.Patch(ctx, "a", types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: manager, Force: &force})
		return err
	}
	if err := apply("one", "1", false); err != nil {
		t.Fatal(err)
	}
	if err := apply("two", "2", false); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "one"`) {
		t.Errorf("another's field: %v", err)
	}
	if err := apply("two", "2", true); err != nil {
		t.Error(err)
	}
	if got := must[*corev1.ConfigMap](t)(maps.Get(ctx, "a", metav1.GetOptions{})); got.Data["x"] != "2" || len(got.ManagedFields) == 0 {
		t.Errorf("applied %v, managed by %v", got.Data, got.ManagedFields)
	}
}

func TestADryRunWritesNothing(t *testing.T) {
	s, ctx := start(t), t.Context()
	client := s.Client("")
	maps := client.CoreV1().ConfigMaps("default")
	dry := []string{metav1.DryRunAll}
	before := s.Journal.Hub().Seq()
	if got := must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("a"), metav1.CreateOptions{DryRun: dry})); got.UID == "" {
		t.Error("a dry run gives no object")
	}
	elsewhere := configMap("a")
	elsewhere.Namespace = "nowhere"
	if _, err := client.CoreV1().ConfigMaps("nowhere").Create(ctx, elsewhere, metav1.CreateOptions{DryRun: dry}); !apierrors.IsNotFound(err) {
		t.Errorf("a dry run in a namespace that does not exist: %v", err)
	}
	if s.Journal.Hub().Seq() != before {
		t.Error("it was written")
	}
	p := pod("waits")
	made := must[*corev1.Pod](t)(client.CoreV1().Pods("default").Create(ctx, p, none))
	made.Annotations = map[string]string{"a": "1"}
	made.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse}}
	s.Change(command.Change{Op: command.Update, Key: api.KeyOf(made), Object: made})
	if err := client.CoreV1().Pods("default").Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: "waits", Annotations: map[string]string{"a": "2"}}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"},
	}, metav1.CreateOptions{DryRun: dry}); err != nil {
		t.Error(err)
	}
	if got := must[*corev1.Pod](t)(client.CoreV1().Pods("default").Get(ctx, "waits", metav1.GetOptions{})); got.Annotations["a"] != "1" || got.Status.Conditions[0].Status != corev1.ConditionFalse {
		t.Errorf("a dry run changed what others read: %v %v", got.Annotations, got.Status.Conditions)
	}
	kept := must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("b"), none))
	if err := maps.Delete(ctx, "b", metav1.DeleteOptions{DryRun: dry}); err != nil {
		t.Error(err)
	}
	kept.Data["a"] = "2"
	if _, err := maps.Update(ctx, kept, metav1.UpdateOptions{DryRun: dry}); err != nil {
		t.Error(err)
	}
	if got := must[*corev1.ConfigMap](t)(maps.Get(ctx, "b", metav1.GetOptions{})); got.Data["a"] != "1" {
		t.Error("a dry run changed an object")
	}
}

func TestDeletion(t *testing.T) {
	s, ctx := start(t), t.Context()
	client := s.Client("")
	pods, maps := client.CoreV1().Pods("default"), client.CoreV1().ConfigMaps("default")

	t.Run("a pod that no machine has is gone at once", func(t *testing.T) {
		must[*corev1.Pod](t)(pods.Create(ctx, pod("unbound"), none))
		if err := pods.Delete(ctx, "unbound", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := pods.Get(ctx, "unbound", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("it is still there: %v", err)
		}
	})
	t.Run("a bound pod gets its grace, which can be shortened", func(t *testing.T) {
		p := pod("bound")
		p.Spec.NodeName = "n1"
		must[*corev1.Pod](t)(pods.Create(ctx, p, none))
		for _, grace := range []*int64{nil, ptr.To(int64(60)), ptr.To(int64(5))} {
			if err := pods.Delete(ctx, "bound", metav1.DeleteOptions{GracePeriodSeconds: grace}); err != nil {
				t.Fatal(err)
			}
			want := int64(30)
			if grace != nil && *grace < want {
				want = *grace
			}
			got := must[*corev1.Pod](t)(pods.Get(ctx, "bound", metav1.GetOptions{}))
			if got.DeletionTimestamp == nil || *got.DeletionGracePeriodSeconds != want {
				t.Errorf("deletion at %v, grace %v, want %d", got.DeletionTimestamp, got.DeletionGracePeriodSeconds, want)
			}
		}
		if err := pods.Delete(ctx, "bound", *metav1.NewDeleteOptions(0)); err != nil {
			t.Fatal(err)
		}
		if _, err := pods.Get(ctx, "bound", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("it is still there: %v", err)
		}
	})
	t.Run("a finalizer keeps an object until it is taken away", func(t *testing.T) {
		m := configMap("kept")
		m.Finalizers = []string{"example.com/hold"}
		must[*corev1.ConfigMap](t)(maps.Create(ctx, m, none))
		if err := maps.Delete(ctx, "kept", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		got := must[*corev1.ConfigMap](t)(maps.Get(ctx, "kept", metav1.GetOptions{}))
		if got.DeletionTimestamp == nil {
			t.Error("no deletionTimestamp")
		}
		got.Finalizers = nil
		if _, err := maps.Update(ctx, got, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := maps.Get(ctx, "kept", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("it is still there: %v", err)
		}
	})
	t.Run("dependents are treated as asked", func(t *testing.T) {
		for policy, finalizer := range map[metav1.DeletionPropagation]string{
			metav1.DeletePropagationForeground: metav1.FinalizerDeleteDependents,
			metav1.DeletePropagationOrphan:     metav1.FinalizerOrphanDependents,
		} {
			name := strings.ToLower(string(policy))
			must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap(name), none))
			if err := maps.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
				t.Fatal(err)
			}
			got := must[*corev1.ConfigMap](t)(maps.Get(ctx, name, metav1.GetOptions{}))
			if got.DeletionTimestamp == nil || len(got.Finalizers) != 1 || got.Finalizers[0] != finalizer {
				t.Errorf("%s: %v %v", policy, got.DeletionTimestamp, got.Finalizers)
			}
		}
	})
	t.Run("a collection goes by selector", func(t *testing.T) {
		for i := range 5 {
			m := configMap(fmt.Sprintf("some-%d", i))
			m.Labels = map[string]string{"odd": fmt.Sprint(i % 2)}
			must[*corev1.ConfigMap](t)(maps.Create(ctx, m, none))
		}
		if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "odd=1"}); err != nil {
			t.Fatal(err)
		}
		left := must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{LabelSelector: "odd"}))
		if len(left.Items) != 3 {
			t.Errorf("%d are left", len(left.Items))
		}
	})
}

func TestNamespaces(t *testing.T) {
	s, ctx := start(t), t.Context()
	client := s.Client("")
	create := func(namespace string) error {
		m := configMap("a")
		m.Namespace = namespace
		_, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, m, none)
		return err
	}
	if err := create("dev"); !apierrors.IsNotFound(err) || err.Error() != `namespaces "dev" not found` {
		t.Errorf("in a namespace that does not exist: %v", err)
	}
	ns := must[*corev1.Namespace](t)(client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "dev"}}, none))
	if ns.Status.Phase != corev1.NamespaceActive || len(ns.Spec.Finalizers) != 1 || ns.Labels[corev1.LabelMetadataName] != "dev" {
		t.Errorf("created %+v", ns)
	}
	if err := create("dev"); err != nil {
		t.Error(err)
	}
	if err := client.CoreV1().Namespaces().Delete(ctx, "dev", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ns = must[*corev1.Namespace](t)(client.CoreV1().Namespaces().Get(ctx, "dev", metav1.GetOptions{}))
	if ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionTimestamp == nil {
		t.Errorf("deleted: %+v", ns.Status)
	}
	m := configMap("b")
	m.Namespace = "dev"
	_, err := client.CoreV1().ConfigMaps("dev").Create(ctx, m, none)
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || !strings.Contains(err.Error(), "because it is being terminated") {
		t.Errorf("in a namespace that goes: %v", err)
	}
	ns.Spec.Finalizers = nil
	if _, err := client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Namespaces().Delete(ctx, "dev", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	if _, err := client.CoreV1().Namespaces().Get(ctx, "dev", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("finalized: %v", err)
	}
	if err := client.CoreV1().Namespaces().Delete(ctx, "default", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("default may be deleted: %v", err)
	}
}

func TestManyWritersOfOneObjectLoseNothing(t *testing.T) {
	s, ctx := start(t), t.Context()
	maps := s.Client("").CoreV1().ConfigMaps("default")
	must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("shared"), none))
	const writers = 20
	errs := make(chan error, writers)
	for i := range writers {
		go func() {
			_, err := maps.Patch(ctx, "shared", types.MergePatchType, fmt.Appendf(nil, `{"data":{"w%d":"x"}}`, i), metav1.PatchOptions{})
			errs <- err
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	got := must[*corev1.ConfigMap](t)(maps.Get(ctx, "shared", metav1.GetOptions{}))
	if len(got.Data) != writers+1 {
		t.Errorf("%d of %d writes are there", len(got.Data)-1, writers)
	}
}

// bind writes a pod's node beside the API, as the scheduler does.
func bind(t testing.TB, s interface {
	Change(command.Change) api.Object
}, client kubernetes.Interface, name, node string,
) {
	t.Helper()
	p := must[*corev1.Pod](t)(client.CoreV1().Pods("default").Get(context.Background(), name, metav1.GetOptions{}))
	p.Spec.NodeName = node
	s.Change(command.Change{Op: command.Update, Key: api.KeyOf(p), Object: p})
}

func TestEviction(t *testing.T) {
	s := start(t)
	pods := s.Client("").CoreV1().Pods("default")
	for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodRunning} {
		p := pod(strings.ToLower(string(phase)))
		p.Spec.NodeName = "n1" // or it has no grace
		p.Spec.TerminationGracePeriodSeconds = ptr.To(int64(7))
		p.Status.Phase = phase
		s.Must(p)
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: "default"}}
		eviction.DeleteOptions = &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
		if err := pods.EvictV1(t.Context(), eviction); err != nil {
			t.Fatal(err)
		}
		if got := must[*corev1.Pod](t)(pods.Get(t.Context(), p.Name, metav1.GetOptions{})); got.DeletionTimestamp != nil {
			t.Errorf("%s: a dry run deleted it", p.Name)
		}
		eviction.DeleteOptions = nil
		if err := pods.EvictV1(t.Context(), eviction); err != nil {
			t.Fatal(err)
		}
		got := must[*corev1.Pod](t)(pods.Get(t.Context(), p.Name, metav1.GetOptions{}))
		if got.DeletionTimestamp == nil || ptr.Deref(got.DeletionGracePeriodSeconds, 0) != 7 {
			t.Errorf("%s is not being deleted: %+v", p.Name, got.ObjectMeta)
		}
		if c := got.Status.Conditions; len(c) != 1 || c[0].Type != corev1.DisruptionTarget || c[0].Reason != "EvictionByEvictionAPI" {
			t.Errorf("%s: conditions %+v", p.Name, c)
		}
	}
	err := pods.EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "none", Namespace: "default"}})
	if !apierrors.IsNotFound(err) {
		t.Errorf("eviction of no pod: %v", err)
	}
}
