package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/utils/ptr"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
	"github.com/troupe-sh/troupe/sdk"
)

func start(t testing.TB) (*gatewaytest.Server, *sdk.Client) {
	t.Helper()
	s := gatewaytest.Start(t, nil)
	return s, dial(t, s.Socket)
}

func dial(t testing.TB, socket string) *sdk.Client {
	t.Helper()
	c, err := sdk.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "busybox"}}},
	}
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"a": "1"}}
}

func controller(name string, replicas int32) *corev1.ReplicationController {
	return &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ReplicationControllerSpec{
			Replicas: &replicas, Selector: map[string]string{"app": name},
			Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}}, Spec: pod(name).Spec},
		},
	}
}

func TestAnObjectsWay(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	pods := sdk.For[*corev1.Pod](c).Namespace("default")
	wanted := pod("a")
	made := must[*corev1.Pod](t)(pods.Create(ctx, wanted, metav1.CreateOptions{}))
	switch {
	case made.UID == "" || made.ResourceVersion == "":
		t.Errorf("made without UID or version: %v", made.ObjectMeta)
	case made.Spec.RestartPolicy != corev1.RestartPolicyAlways || made.Status.Phase != corev1.PodPending:
		t.Errorf("no defaults: %v", made.Spec)
	case made.Kind != "Pod" || made.APIVersion != "v1":
		t.Errorf("no type: %v", made.TypeMeta)
	case made.ManagedFields[0].Manager != "sdk.test":
		t.Errorf("managed by %q", made.ManagedFields[0].Manager)
	case wanted.UID != "" || wanted.Kind != "":
		t.Error("what was given was written on")
	}

	got := must[*corev1.Pod](t)(pods.Get(ctx, "a", metav1.GetOptions{}))
	if got.UID != made.UID {
		t.Error("another pod is read")
	}
	got.Labels["tier"] = "web"
	got.Status.Message = "not-by-this-way"
	updated := must[*corev1.Pod](t)(pods.Update(ctx, got, metav1.UpdateOptions{}))
	if updated.Labels["tier"] != "web" || updated.Status.Message != "" {
		t.Errorf("updated: %v, %q", updated.Labels, updated.Status.Message)
	}
	updated.Status.Message, updated.Spec.Containers[0].Image = "by this", "not-by-this-way"
	updated = must[*corev1.Pod](t)(pods.UpdateStatus(ctx, updated, metav1.UpdateOptions{}))
	if updated.Spec.Containers[0].Image != "busybox" || updated.Status.Message != "by this" {
		t.Errorf("status updated: %v, %q", updated.Spec.Containers, updated.Status.Message)
	}
	for kind, patch := range map[types.PatchType]string{
		types.JSONPatchType:           `[{"op":"add","path":"/metadata/labels/x","value":"y"}]`,
		types.MergePatchType:          `{"metadata":{"labels":{"x":"y"}}}`,
		types.StrategicMergePatchType: `{"metadata":{"labels":{"x":"y"}}}`,
	} {
		patched := must[*corev1.Pod](t)(pods.Patch(ctx, "a", kind, []byte(patch), metav1.PatchOptions{}))
		if patched.Labels["x"] != "y" {
			t.Errorf("%s: %v", kind, patched.Labels)
		}
		must[*corev1.Pod](t)(pods.Modify(ctx, "a", func(p *corev1.Pod) error { delete(p.Labels, "x"); return nil }))
	}
	patched := must[*corev1.Pod](t)(pods.Patch(ctx, "a", types.MergePatchType, []byte(`{"status":{"message":"patched"}}`), metav1.PatchOptions{}, "status"))
	if patched.Status.Message != "patched" {
		t.Errorf("status patched: %q", patched.Status.Message)
	}

	if err := pods.Delete(ctx, "a", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Get(ctx, "a", metav1.GetOptions{}); !errors.Is(err, sdk.ErrNotFound) {
		t.Errorf("deleted and read: %v", err)
	}
}

func TestAnObjectWithoutNamespaceAndOneThatNamesItsOwn(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	must[*corev1.Namespace](t)(sdk.For[*corev1.Namespace](c).Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{}))
	m := configMap("a")
	m.Namespace = "other"
	all := sdk.For[*corev1.ConfigMap](c)
	made := must[*corev1.ConfigMap](t)(all.Create(ctx, m, metav1.CreateOptions{}))
	must[*corev1.ConfigMap](t)(all.Update(ctx, made, metav1.UpdateOptions{}))
	if l := must[*sdk.List[*corev1.ConfigMap]](t)(all.List(ctx, metav1.ListOptions{})); len(l.Items) != 1 || l.Items[0].Namespace != "other" || l.Items[0].Kind != "ConfigMap" {
		t.Errorf("listed: %v", l.Items)
	}
}

func TestScale(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	controllers := sdk.For[*corev1.ReplicationController](c).Namespace("default")
	must[*corev1.ReplicationController](t)(controllers.Create(ctx, controller("a", 1), metav1.CreateOptions{}))
	scale, err := controllers.Scale(ctx, "a")
	if err != nil || scale.Spec.Replicas != 1 || scale.Status.Selector != "app=a" {
		t.Fatalf("%v, %v", scale, err)
	}
	scale.Spec.Replicas = 3
	if scale, err = controllers.UpdateScale(ctx, scale, metav1.UpdateOptions{}); err != nil || scale.Spec.Replicas != 3 {
		t.Fatalf("%v, %v", scale, err)
	}
	if got := must[*corev1.ReplicationController](t)(controllers.Get(ctx, "a", metav1.GetOptions{})); *got.Spec.Replicas != 3 {
		t.Errorf("%d replicas", *got.Spec.Replicas)
	}
}

func TestRefusals(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	pods := sdk.For[*corev1.Pod](c).Namespace("default")
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("a"), metav1.CreateOptions{}))
	stale := must[*corev1.ConfigMap](t)(maps.Get(ctx, "a", metav1.GetOptions{}))
	must[*corev1.ConfigMap](t)(maps.Modify(ctx, "a", func(m *corev1.ConfigMap) error { m.Data["a"] = "2"; return nil }))
	for name, test := range map[string]struct {
		do   func() error
		kind error
		says string
		also func(error) bool
	}{
		"no such object": {func() error { _, err := pods.Get(ctx, "b", metav1.GetOptions{}); return err }, sdk.ErrNotFound, `pods "b" not found`, apierrors.IsNotFound},
		"no such namespace": {func() error {
			_, err := maps.Namespace("nowhere").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
			return err
		}, sdk.ErrNotFound, `namespaces "nowhere" not found`, apierrors.IsNotFound},
		"it exists": {func() error { _, err := maps.Create(ctx, configMap("a"), metav1.CreateOptions{}); return err }, sdk.ErrAlreadyExists, `configmaps "a" already exists`, apierrors.IsAlreadyExists},
		"stale":     {func() error { _, err := maps.Update(ctx, stale, metav1.UpdateOptions{}); return err }, sdk.ErrConflict, "the object has been modified", apierrors.IsConflict},
		"a precondition": {func() error {
			return maps.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To[types.UID]("x")}})
		}, sdk.ErrConflict, "UID", apierrors.IsConflict},
		"invalid": {func() error {
			p := pod("b")
			p.Spec.Containers[0].Image = ""
			p.Spec.Containers[0].Name = "Ü"
			_, err := pods.Create(ctx, p, metav1.CreateOptions{})
			var refused *sdk.Error
			if errors.As(err, &refused) {
				fields := []string{}
				for _, cause := range refused.Causes() {
					fields = append(fields, cause.Field)
				}
				if !slices.Equal(fields, []string{"spec.containers[0].name", "spec.containers[0].image"}) {
					t.Errorf("causes at %v", fields)
				}
			}
			return err
		}, sdk.ErrInvalid, `Pod "b" is invalid`, apierrors.IsInvalid},
		"forbidden": {func() error {
			return sdk.For[*corev1.Namespace](c).Delete(ctx, "default", metav1.DeleteOptions{})
		}, sdk.ErrForbidden, "may not be deleted", apierrors.IsForbidden},
		"a selector that is none": {func() error { _, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "!!"}); return err }, sdk.ErrBadRequest, "", apierrors.IsBadRequest},
		"a version that is gone": {func() error {
			_, err := pods.List(ctx, metav1.ListOptions{ResourceVersion: "1", ResourceVersionMatch: metav1.ResourceVersionMatchExact})
			return err
		}, sdk.ErrGone, "no longer kept", apierrors.IsResourceExpired},
		"an object too large": {func() error {
			m := configMap("big")
			m.Data["a"] = strings.Repeat("x", 3<<20)
			_, err := maps.Create(ctx, m, metav1.CreateOptions{})
			return err
		}, nil, "", apierrors.IsRequestEntityTooLargeError},
		"no namespace": {func() error { _, err := maps.Namespace("").Get(ctx, "a", metav1.GetOptions{}); return err }, sdk.ErrBadRequest, "a ConfigMap lives in a namespace: name it", nil},
		"a namespace too much": {func() error {
			_, err := sdk.For[*corev1.Node](c).Namespace("x").Get(ctx, "a", metav1.GetOptions{})
			return err
		}, sdk.ErrBadRequest, `a Node lives in no namespace, and "x" is named`, nil},
		"a name that is a path": {func() error { _, err := maps.Get(ctx, "a/status", metav1.GetOptions{}); return err }, sdk.ErrBadRequest, "may not contain '/'", nil},
		"a kind to come":        {func() error { _, err := sdk.For[*corev1.Service](c).List(ctx, metav1.ListOptions{}); return err }, sdk.ErrNotFound, "Troupe does not have Service (v1) yet; it has Namespace, ", nil},
		"no sub-resource": {func() error {
			_, err := maps.Patch(ctx, "a", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{}, "scale")
			return err
		}, sdk.ErrNotFound, "Troupe does not have configmaps/scale (v1)", nil},
		"a patch that is none": {func() error {
			_, err := maps.Patch(ctx, "a", types.MergePatchType, []byte(`{`), metav1.PatchOptions{})
			return err
		}, sdk.ErrBadRequest, "", nil},
		"a patch of no kind": {func() error {
			_, err := maps.Patch(ctx, "a", "text/plain", []byte(`{}`), metav1.PatchOptions{})
			return err
		}, sdk.ErrBadRequest, `does not take a body of the type "text/plain"`, nil},
		"an unknown field, strictly": {func() error {
			_, err := maps.Patch(ctx, "a", types.MergePatchType, []byte(`{"dota":{}}`), metav1.PatchOptions{FieldValidation: metav1.FieldValidationStrict})
			return err
		}, sdk.ErrInvalid, `unknown field "dota"`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.do()
			if err == nil || test.kind != nil && !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want one that is %q and says %q", err, test.kind, test.says)
			}
			if test.also != nil && !test.also(err) {
				t.Errorf("apierrors does not know %v", err)
			}
			for _, kind := range []error{sdk.ErrNotFound, sdk.ErrAlreadyExists, sdk.ErrConflict, sdk.ErrInvalid, sdk.ErrForbidden, sdk.ErrBadRequest, sdk.ErrGone, sdk.ErrTooManyRequests, sdk.ErrUnavailable, sdk.ErrNoAgent, sdk.ErrOutcomeUnknown} {
				if kind != test.kind && errors.Is(err, kind) {
					t.Errorf("%v is also %v", err, kind)
				}
			}
		})
	}
}

func TestWarningsReachTheCaller(t *testing.T) {
	_, c := start(t)
	var heard []string
	ctx := sdk.WithWarnings(t.Context(), func(w string) { heard = append(heard, w) })
	pods := sdk.For[*corev1.Pod](c).Namespace("default")
	p := pod("a")
	p.Spec.PriorityClassName = "" // nothing acts on what follows
	p.Spec.DNSPolicy = corev1.DNSDefault
	p.Annotations = map[string]string{"kubernetes.io/psp": "x"}
	must[*corev1.Pod](t)(pods.Create(ctx, p, metav1.CreateOptions{}))
	must[*corev1.Pod](t)(pods.Patch(ctx, "a", types.MergePatchType, []byte(`{"spoc":1}`), metav1.PatchOptions{}))
	if len(heard) == 0 || !slices.Contains(heard, `unknown field "spoc"`) {
		t.Errorf("heard %q", heard)
	}
}

func TestADryRunWritesNothing(t *testing.T) {
	_, c := start(t)
	ctx, all := t.Context(), []string{metav1.DryRunAll}
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	if m, err := maps.Create(ctx, configMap("a"), metav1.CreateOptions{DryRun: all}); err != nil || m.UID == "" {
		t.Fatalf("%v, %v", m, err)
	}
	if _, err := maps.Get(ctx, "a", metav1.GetOptions{}); !errors.Is(err, sdk.ErrNotFound) {
		t.Errorf("it is there: %v", err)
	}
	must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("a"), metav1.CreateOptions{}))
	if err := maps.Delete(ctx, "a", metav1.DeleteOptions{DryRun: all}); err != nil {
		t.Fatal(err)
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: all}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	m := must[*corev1.ConfigMap](t)(maps.Get(ctx, "a", metav1.GetOptions{}))
	m.Data["a"] = "2"
	if m = must[*corev1.ConfigMap](t)(maps.Update(ctx, m, metav1.UpdateOptions{DryRun: all})); m.Data["a"] != "2" {
		t.Errorf("the answer is %v", m.Data)
	}
	if m = must[*corev1.ConfigMap](t)(maps.Get(ctx, "a", metav1.GetOptions{})); m.Data["a"] != "1" {
		t.Errorf("it was written: %v", m.Data)
	}
}

func TestServerSideApply(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	one, two := metav1.ApplyOptions{FieldManager: "one"}, metav1.ApplyOptions{FieldManager: "two"}
	wanted := applycorev1.ConfigMap("a", "default").WithData(map[string]string{"x": "1"})
	if m := must[*corev1.ConfigMap](t)(maps.Apply(ctx, wanted, one)); m.Data["x"] != "1" || m.ManagedFields[0].Manager != "one" {
		t.Errorf("made %v", m)
	}
	// The same without types, and with the type itself.
	plain := map[string]any{"metadata": map[string]any{"name": "a"}, "data": map[string]any{"x": "2"}}
	_, err := maps.Apply(ctx, plain, two)
	if !errors.Is(err, sdk.ErrConflict) {
		t.Errorf("what another manages: %v", err)
	}
	var refused *sdk.Error
	if !errors.As(err, &refused) || len(refused.Causes()) != 1 || refused.Causes()[0].Field != ".data.x" {
		t.Errorf("causes: %v", refused)
	}
	two.Force = true
	if m := must[*corev1.ConfigMap](t)(maps.Apply(ctx, plain, two)); m.Data["x"] != "2" {
		t.Errorf("forced: %v", m.Data)
	}
	typed := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"y": "1"}}
	if m := must[*corev1.ConfigMap](t)(maps.Apply(ctx, typed, one)); m.Data["x"] != "2" || m.Data["y"] != "1" {
		t.Errorf("given up and added: %v", m.Data)
	}
	if _, err := maps.Apply(ctx, map[string]any{}, one); err == nil || !strings.Contains(err.Error(), "metadata.name is missing") {
		t.Errorf("no name: %v", err)
	}
}

func TestListsAndPages(t *testing.T) {
	s, c := start(t)
	ctx := t.Context()
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	const many = 25
	for i := range many {
		m := configMap(fmt.Sprintf("m-%02d", i))
		m.Labels = map[string]string{"even": fmt.Sprint(i%2 == 0)}
		s.Must(m)
	}
	page := must[*sdk.List[*corev1.ConfigMap]](t)(maps.List(ctx, metav1.ListOptions{Limit: 10}))
	if len(page.Items) != 10 || page.Continue == "" || page.Version == "" || *page.Remaining != many-10 {
		t.Errorf("a page of %d, then %v", len(page.Items), page.Remaining)
	}
	names := func(o metav1.ListOptions) (names []string) {
		for m, err := range maps.All(ctx, o) {
			if err != nil {
				t.Fatal(err)
			}
			if len(names) == 3 { // what comes meanwhile is not seen
				_, _ = maps.Create(ctx, configMap("m-999"), metav1.CreateOptions{})
			}
			names = append(names, m.Name)
		}
		return names
	}
	if got := names(metav1.ListOptions{Limit: 7}); len(got) != many || !slices.IsSorted(got) || got[many-1] != "m-24" {
		t.Errorf("all: %v", got)
	}
	if got := names(metav1.ListOptions{Limit: 5, LabelSelector: "even=true"}); len(got) != 13 {
		t.Errorf("even: %v", got)
	}
	if got := names(metav1.ListOptions{FieldSelector: "metadata.name=m-07"}); !slices.Equal(got, []string{"m-07"}) {
		t.Errorf("by field: %v", got)
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "even=true"}); err != nil {
		t.Fatal(err)
	}
	if got := names(metav1.ListOptions{}); len(got) != 13 {
		t.Errorf("left: %v", got)
	}
	for _, err := range maps.All(ctx, metav1.ListOptions{LabelSelector: "!!"}) {
		if !errors.Is(err, sdk.ErrBadRequest) {
			t.Errorf("got %v", err)
		}
	}
}

func TestALargeListComesWhole(t *testing.T) {
	s, c := start(t)
	for i := range 12 {
		m := configMap(fmt.Sprintf("m-%02d", i))
		m.Data["a"] = strings.Repeat(string(rune('a'+i)), 1000_000)
		s.Must(m)
	}
	l := must[*sdk.List[*corev1.ConfigMap]](t)(sdk.For[*corev1.ConfigMap](c).List(t.Context(), metav1.ListOptions{}))
	for i, m := range l.Items {
		if m.Data["a"] != strings.Repeat(string(rune('a'+i)), 1000_000) {
			t.Errorf("%s is not as it was", m.Name)
		}
	}
	if len(l.Items) != 12 {
		t.Errorf("%d objects", len(l.Items))
	}
}

func TestTheSameWriteUnderOneIDIsDoneOnce(t *testing.T) {
	_, c := start(t)
	ctx := sdk.WithID(t.Context(), "once")
	maps := sdk.For[*corev1.ConfigMap](c).Namespace("default")
	m := configMap("")
	m.GenerateName = "gen-"
	first := must[*corev1.ConfigMap](t)(maps.Create(ctx, m, metav1.CreateOptions{}))
	if again := must[*corev1.ConfigMap](t)(maps.Create(ctx, m, metav1.CreateOptions{})); again.UID != first.UID {
		t.Errorf("made %s and %s", first.Name, again.Name)
	}
	// An update that carries the version that it read would be a conflict.
	first.Data["a"] = "2"
	written := must[*corev1.ConfigMap](t)(maps.Update(ctx, first, metav1.UpdateOptions{}))
	must[*corev1.ConfigMap](t)(maps.Modify(t.Context(), first.Name, func(m *corev1.ConfigMap) error { m.Data["a"] = "3"; return nil }))
	if again := must[*corev1.ConfigMap](t)(maps.Update(ctx, first, metav1.UpdateOptions{})); again.ResourceVersion != written.ResourceVersion {
		t.Errorf("written as %s, then as %s", written.ResourceVersion, again.ResourceVersion)
	}
	if now := must[*corev1.ConfigMap](t)(maps.Get(t.Context(), first.Name, metav1.GetOptions{})); now.Data["a"] != "3" {
		t.Errorf("the second wrote: %v", now.Data)
	}
}

func TestNobodyAnswers(t *testing.T) {
	c := dial(t, filepath.Join(t.TempDir(), "none"))
	pods := sdk.For[*corev1.Pod](c).Namespace("default")
	_, read := pods.Get(t.Context(), "a", metav1.GetOptions{})
	_, written := pods.Create(t.Context(), pod("a"), metav1.CreateOptions{})
	_, version := c.Version(t.Context())
	var watched error
	for _, watched = range pods.Watch(t.Context(), metav1.ListOptions{}) {
	}
	for what, err := range map[string]error{"read": read, "written": written, "watched": watched, "version": version} {
		if !errors.Is(err, sdk.ErrNoAgent) || errors.Is(err, sdk.ErrOutcomeUnknown) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestACallThatIsGivenUp(t *testing.T) {
	_, c := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	_, err := sdk.For[*corev1.Pod](c).Namespace("default").Create(ctx, pod("a"), metav1.CreateOptions{})
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sdk.ErrOutcomeUnknown) {
		t.Errorf("it never left: %v", err)
	}
}
