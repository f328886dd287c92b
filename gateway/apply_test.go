package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// managers are who owns something of an object: "manager operation subresource".
func managers(o metav1.Object) (out []string) {
	for _, m := range o.GetManagedFields() {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", m.Manager, m.Operation, m.Subresource)))
	}
	slices.Sort(out)
	return out
}

func TestServerSideApply(t *testing.T) {
	s, ctx := start(t), t.Context()
	pods := s.Client("").CoreV1().Pods("default")
	apply := func(manager, body string, o metav1.PatchOptions) (*corev1.Pod, error) {
		o.FieldManager = manager
		return pods.Patch(ctx, "web", types.ApplyPatchType, []byte(body), o)
	}
	yes := true
	const first = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web, tier: front}}\nspec: {containers: [{name: a, image: nginx, env: [{name: X, value: '1'}]}]}\n"

	before := s.Journal.Hub().Seq()
	if got, err := apply("one", first, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}); err != nil || got.UID == "" || s.Journal.Hub().Seq() != before {
		t.Errorf("a dry run: %v, %d changes", err, s.Journal.Hub().Seq()-before)
	}
	made := must[*corev1.Pod](t)(apply("one", first, metav1.PatchOptions{}))
	if got := managers(made); !slices.Equal(got, []string{"one Apply"}) {
		t.Errorf("created by %v", got)
	}
	if again := must[*corev1.Pod](t)(apply("one", first, metav1.PatchOptions{})); again.ResourceVersion != made.ResourceVersion {
		t.Error("the same applied twice made a new version")
	}

	// Another owner of another field; then of the same one.
	must[*corev1.Pod](t)(apply("two", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","annotations":{"note":"two"}}}`, metav1.PatchOptions{}))
	_, err := apply("two", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"tier":"back"}},"spec":{"containers":[{"name":"a","image":"redis"}]}}`, metav1.PatchOptions{})
	var fields []string
	if status, ok := err.(apierrors.APIStatus); ok && apierrors.IsConflict(err) {
		for _, c := range status.Status().Details.Causes {
			if c.Type != metav1.CauseTypeFieldManagerConflict || !strings.Contains(c.Message, `conflict with "one"`) {
				t.Errorf("cause %+v", c)
			}
			fields = append(fields, c.Field)
		}
	}
	slices.Sort(fields)
	if !slices.Equal(fields, []string{".metadata.labels.tier", `.spec.containers[name="a"].image`}) {
		t.Errorf("conflicts in %v: %v", fields, err)
	}
	forced := must[*corev1.Pod](t)(apply("two", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"tier":"back"}},"spec":{"containers":[{"name":"a","image":"redis"}]}}`, metav1.PatchOptions{Force: &yes}))
	if forced.Spec.Containers[0].Image != "redis" || forced.Labels["tier"] != "back" || forced.Labels["app"] != "web" || forced.Annotations["note"] != "" {
		t.Errorf("forced to %v %v %v", forced.Labels, forced.Annotations, forced.Spec.Containers[0].Image)
	}
	if forced.Spec.Containers[0].Env[0].Value != "1" {
		t.Error("a list that is merged by name was replaced")
	}
	// What one gives up and nobody else owns goes.
	given := must[*corev1.Pod](t)(apply("one", "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, env: [{name: X, value: '1'}]}]}\n", metav1.PatchOptions{}))
	if _, there := given.Labels["app"]; there || given.Labels["tier"] != "back" {
		t.Errorf("labels after the owner of one gave it up: %v", given.Labels)
	}
	// An update is an owner too.
	given.Labels["tier"] = "middle"
	must[*corev1.Pod](t)(pods.Update(ctx, given, metav1.UpdateOptions{FieldManager: "editor"}))
	if _, err := apply("two", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"tier":"back"}},"spec":{"containers":[{"name":"a","image":"redis"}]}}`, metav1.PatchOptions{}); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "editor"`) {
		t.Errorf("against an update: %v", err)
	}

	for name, q := range map[string]struct {
		manager, body string
		want          func(error) bool
		says          string
	}{
		"no manager":      {"", first, apierrors.IsInvalid, "fieldManager: Required value"},
		"another name":    {"one", strings.Replace(first, "name: web", "name: other", 1), apierrors.IsBadRequest, "the name of the object (other) does not match the name on the URL (web)"},
		"another kind":    {"one", strings.Replace(first, "kind: Pod", "kind: ConfigMap", 1), apierrors.IsBadRequest, ""},
		"managedFields":   {"one", strings.Replace(first, "name: web,", "name: web, managedFields: [{manager: x}],", 1), apierrors.IsBadRequest, "metadata.managedFields must be nil"},
		"no such field":   {"one", first + "status: {color: red}\n", nil, ".status.color: field not declared in schema"},
		"a wrong type":    {"one", strings.Replace(first, "value: '1'", "value: [1]", 1), nil, `.spec.containers[name="a"].env[name="X"].value: expected string`},
		"no YAML":         {"one", "{{{{", apierrors.IsBadRequest, "error decoding YAML"},
		"an old version":  {"one", strings.Replace(first, "name: web,", "name: web, resourceVersion: '1',", 1), apierrors.IsConflict, "the object has been modified"},
		"another UID":     {"one", strings.Replace(first, "name: web,", "name: web, uid: nobody,", 1), apierrors.IsInvalid, "metadata.uid: Invalid value"},
		"a name too long": {"one", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + strings.Repeat("x", 300) + `"}}`, apierrors.IsBadRequest, ""},
	} {
		_, err := apply(q.manager, q.body, metav1.PatchOptions{Force: &yes, FieldValidation: "Strict"})
		if err == nil || q.want != nil && !q.want(err) || !strings.Contains(err.Error(), q.says) {
			t.Errorf("%s: %T %v", name, err, err)
		}
	}

	// Status and scale are applied apart.
	status := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"status":{"message":"hello"}}`
	told := must[*corev1.Pod](t)(pods.Patch(ctx, "web", types.ApplyPatchType, []byte(status), metav1.PatchOptions{FieldManager: "agent", Force: &yes}, "status"))
	if told.Status.Message != "hello" || !slices.Contains(managers(told), "agent Apply status") {
		t.Errorf("status %q, managed by %v", told.Status.Message, managers(told))
	}
	controllers := s.Client("").CoreV1().ReplicationControllers("default")
	must[*corev1.ReplicationController](t)(controllers.Create(ctx, controller("rc"), none))
	for kind, body := range map[types.PatchType]string{
		types.ApplyPatchType:          `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"rc"},"spec":{"replicas":7}}`,
		types.MergePatchType:          `{"spec":{"replicas":7}}`,
		types.JSONPatchType:           `[{"op":"replace","path":"/spec/replicas","value":7}]`,
		types.StrategicMergePatchType: `{"spec":{"replicas":7}}`,
	} {
		must[*corev1.ReplicationController](t)(controllers.Patch(ctx, "rc", types.MergePatchType, []byte(`{"spec":{"replicas":2}}`), metav1.PatchOptions{}))
		query := "?fieldManager=scaler"
		if kind == types.ApplyPatchType {
			query += "&force=true"
		}
		resp, text, _ := send(t, s.HTTP(), http.MethodPatch, "/api/v1/namespaces/default/replicationcontrollers/rc/scale"+query,
			map[string]string{"Content-Type": string(kind)}, strings.NewReader(body))
		var scale struct {
			Kind string
			Spec struct{ Replicas int }
		}
		if err := json.Unmarshal([]byte(text), &scale); err != nil || resp.StatusCode != http.StatusOK || scale.Kind != "Scale" || scale.Spec.Replicas != 7 {
			t.Errorf("scale by %s: %d %s", kind, resp.StatusCode, text)
		}
		rc := must[*corev1.ReplicationController](t)(controllers.Get(ctx, "rc", metav1.GetOptions{}))
		if *rc.Spec.Replicas != 7 || kind == types.ApplyPatchType && !slices.Contains(managers(rc), "scaler Apply scale") {
			t.Errorf("scaled by %s to %d, managed by %v", kind, *rc.Spec.Replicas, managers(rc))
		}
	}
}

func TestPatchesThatCannotBeCarriedOut(t *testing.T) {
	s := start(t)
	s.Must(configMap("a"))
	s.Must(pod("p"))
	many := "[" + strings.Repeat(`{"op":"add","path":"/data/x","value":"1"},`, 10000) + `{"op":"add","path":"/data/x","value":"1"}]`
	for name, q := range map[string]struct { // with Kubernetes' own codes, also where it calls a client's mistake its own
		kind types.PatchType
		path string
		body string
		code int
		says string
	}{
		"no JSON":                     {types.JSONPatchType, "configmaps/a", "x", http.StatusBadRequest, ""},
		"no such operation":           {types.JSONPatchType, "configmaps/a", `[{"op":"improve","path":"/data"}]`, http.StatusUnprocessableEntity, ""},
		"a path that is not there":    {types.JSONPatchType, "configmaps/a", `[{"op":"remove","path":"/data/none"}]`, http.StatusUnprocessableEntity, ""},
		"a test that fails":           {types.JSONPatchType, "configmaps/a", `[{"op":"test","path":"/data/a","value":"2"}]`, http.StatusUnprocessableEntity, ""},
		"an index out of range":       {types.JSONPatchType, "pods/p", `[{"op":"add","path":"/spec/containers/99999999999","value":{}}]`, http.StatusUnprocessableEntity, ""},
		"more operations than may be": {types.JSONPatchType, "configmaps/a", many, http.StatusRequestEntityTooLarge, "The allowed maximum operations in a JSON patch is 10000"},
		"a merge with a list":         {types.MergePatchType, "configmaps/a", `[]`, http.StatusBadRequest, ""},
		"a merge of a wrong type":     {types.MergePatchType, "configmaps/a", `{"data":[1,2]}`, http.StatusUnprocessableEntity, "cannot unmarshal array"},
		"a null":                      {types.MergePatchType, "configmaps/a", `null`, http.StatusBadRequest, ""},
		"a strategic list, no key":    {types.StrategicMergePatchType, "pods/p", `{"spec":{"containers":[{"image":"x"}]}}`, http.StatusInternalServerError, "does not contain declared merge key: name"},
		"a strategic directive":       {types.StrategicMergePatchType, "pods/p", `{"spec":{"$patch":"explode"}}`, http.StatusInternalServerError, "unknown patch type: explode"},
		"another name":                {types.MergePatchType, "configmaps/a", `{"metadata":{"name":"b"}}`, http.StatusBadRequest, "the name of the object (b) does not match the name on the URL (a)"},
		"another version":             {types.MergePatchType, "configmaps/a", `{"metadata":{"resourceVersion":"1"}}`, http.StatusConflict, "the object has been modified"},
		"another UID":                 {types.MergePatchType, "configmaps/a", `{"metadata":{"uid":"x"}}`, http.StatusUnprocessableEntity, "metadata.uid: Invalid value"},
		"nobody":                      {types.MergePatchType, "configmaps/b", `{}`, http.StatusNotFound, `configmaps "b" not found`},
		"a kind of patch of nobody":   {"application/strange", "configmaps/a", `{}`, http.StatusUnsupportedMediaType, "application/strategic-merge-patch+json"},
	} {
		resp, text, status := send(t, s.HTTP(), http.MethodPatch, "/api/v1/namespaces/default/"+q.path, map[string]string{"Content-Type": string(q.kind)}, strings.NewReader(q.body))
		if resp.StatusCode != q.code || status.Kind != "Status" || !strings.Contains(status.Message, q.says) {
			t.Errorf("%s: %d %.300s", name, resp.StatusCode, text)
		}
	}
	if got := must[*corev1.ConfigMap](t)(s.Client("").CoreV1().ConfigMaps("default").Get(t.Context(), "a", metav1.GetOptions{})); got.Data["a"] != "1" || len(got.Data) != 1 {
		t.Errorf("one of them changed something: %v", got.Data)
	}
}
