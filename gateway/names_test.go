package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func TestNames(t *testing.T) {
	s, ctx := start(t), t.Context()
	client := s.Client("").CoreV1()
	for name, ok := range map[string]bool{
		strings.Repeat("x", 253): true, strings.Repeat("x", 254): false, "a.b-c": true, "A": false, "-a": false, "a_b": false, "..": false, "a/b": false, "ä": false,
	} {
		_, err := client.ConfigMaps("default").Create(ctx, configMap(name), none)
		if ok != (err == nil) || err != nil && !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
			t.Errorf("a ConfigMap named %.20q: %v", name, err)
		}
	}
	for name, ok := range map[string]bool{strings.Repeat("x", 63): true, strings.Repeat("x", 64): false, "a.b": false} {
		_, err := client.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, none)
		if ok != (err == nil) || err != nil && !apierrors.IsInvalid(err) {
			t.Errorf("a Namespace named %.20q: %v", name, err)
		}
	}
	long := configMap("")
	long.GenerateName = strings.Repeat("g", 100)
	if made := must[*corev1.ConfigMap](t)(client.ConfigMaps("default").Create(ctx, long, none)); len(made.Name) != 63 || !strings.HasPrefix(made.Name, strings.Repeat("g", 58)) {
		t.Errorf("generated %s", made.Name)
	}
	bad := configMap("")
	bad.GenerateName = "Bad_"
	if _, err := client.ConfigMaps("default").Create(ctx, bad, none); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "metadata.generateName") {
		t.Errorf("a wrong base: %v", err)
	}
	for _, path := range []string{"/api/v1/namespaces/default/configmaps/a%2Fb", "/api/v1/namespaces/default/configmaps/%2e%2e", "/api/v1/namespaces/A_B/configmaps/x", "/api/v1/namespaces/default/configmaps/%00"} {
		if resp, text, _ := send(t, s.HTTP(), http.MethodGet, path, nil, nil); resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
}

func TestPreconditions(t *testing.T) {
	s, ctx := start(t), t.Context()
	maps := s.Client("").CoreV1().ConfigMaps("default")
	made := must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("a"), none))
	changed := label(t, s.Client(""), "a", "x")
	for name, p := range map[string]*metav1.Preconditions{
		"an old version":           {ResourceVersion: &made.ResourceVersion},
		"another UID":              {UID: ptr.To(types.UID("x"))},
		"the version, another UID": {ResourceVersion: &changed.ResourceVersion, UID: ptr.To(types.UID("x"))},
		"no version":               {ResourceVersion: ptr.To("x")},
	} {
		if err := maps.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: p}); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "in the precondition") {
			t.Errorf("delete with %s: %v", name, err)
		}
	}
	stale := changed.DeepCopy()
	stale.ResourceVersion = made.ResourceVersion
	if _, err := maps.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update of an old version: %v", err)
	}
	stale.ResourceVersion, stale.UID = "", "x"
	if _, err := maps.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update of another UID: %v", err)
	}
	stale.UID = ""
	stale.Data = map[string]string{"without": "a version"}
	if got := must[*corev1.ConfigMap](t)(maps.Update(ctx, stale, metav1.UpdateOptions{})); got.UID != made.UID || got.Data["without"] == "" || got.CreationTimestamp != made.CreationTimestamp {
		t.Errorf("an update without a version: %+v", got)
	}
	now := must[*corev1.ConfigMap](t)(maps.Get(ctx, "a", metav1.GetOptions{}))
	if err := maps.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &now.UID, ResourceVersion: &now.ResourceVersion}}); err != nil {
		t.Errorf("delete of what it is: %v", err)
	}
}

func TestGenerations(t *testing.T) {
	s, ctx := start(t), t.Context()
	client := s.Client("").CoreV1()
	patch := types.MergePatchType
	rc := must[*corev1.ReplicationController](t)(client.ReplicationControllers("default").Create(ctx, controller("web"), none))
	p := must[*corev1.Pod](t)(client.Pods("default").Create(ctx, pod("p"), none))
	if rc.Generation != 1 || p.Generation != 1 {
		t.Errorf("created with %d and %d", rc.Generation, p.Generation)
	}
	for _, step := range []struct {
		what, pod, rc, sub string
		want               int64
	}{
		{"labels", `{"metadata":{"labels":{"x":"y"}}}`, `{"metadata":{"labels":{"x":"y"}}}`, "", 1},
		{"status", `{"status":{"message":"x"}}`, `{"status":{"replicas":1}}`, "status", 1},
		{"status by the way of the spec", `{"status":{"message":"y"}}`, `{"status":{"replicas":2}}`, "", 1},
		{"spec", `{"spec":{"activeDeadlineSeconds":5}}`, `{"spec":{"replicas":3}}`, "", 2},
		{"spec by the way of the status", `{"spec":{"activeDeadlineSeconds":4}}`, `{"spec":{"replicas":4}}`, "status", 2},
		{"nothing", `{"spec":{"activeDeadlineSeconds":5}}`, `{"spec":{"replicas":3}}`, "", 2},
		{"the number itself", `{"metadata":{"generation":9}}`, `{"metadata":{"generation":9}}`, "", 2},
	} {
		var sub []string
		if step.sub != "" {
			sub = []string{step.sub}
		}
		p = must[*corev1.Pod](t)(client.Pods("default").Patch(ctx, "p", patch, []byte(step.pod), metav1.PatchOptions{}, sub...))
		rc = must[*corev1.ReplicationController](t)(client.ReplicationControllers("default").Patch(ctx, "web", patch, []byte(step.rc), metav1.PatchOptions{}, sub...))
		if p.Generation != step.want || rc.Generation != step.want {
			t.Errorf("after a change of %s: pod %d, controller %d, want %d", step.what, p.Generation, rc.Generation, step.want)
		}
	}
	if p.Status.Message != "x" || *p.Spec.ActiveDeadlineSeconds != 5 || rc.Status.Replicas != 1 || *rc.Spec.Replicas != 3 {
		t.Errorf("spec and status are not apart: %q %d, %d %d", p.Status.Message, *p.Spec.ActiveDeadlineSeconds, rc.Status.Replicas, *rc.Spec.Replicas)
	}
	rc = must[*corev1.ReplicationController](t)(client.ReplicationControllers("default").Get(ctx, "web", metav1.GetOptions{}))
	rc.Finalizers = []string{"example.com/hold"}
	must[*corev1.ReplicationController](t)(client.ReplicationControllers("default").Update(ctx, rc, metav1.UpdateOptions{}))
	if err := client.ReplicationControllers("default").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if rc = must[*corev1.ReplicationController](t)(client.ReplicationControllers("default").Get(ctx, "web", metav1.GetOptions{})); rc.Generation != 3 {
		t.Errorf("being deleted: %d", rc.Generation)
	}
}

func TestFieldSelectors(t *testing.T) {
	s, ctx := start(t), t.Context()
	client := s.Client("").CoreV1()
	for _, name := range []string{"a", "b", "c"} {
		p := pod(name)
		if name != "a" {
			p.Spec.NodeName = "n1"
		}
		s.Must(p)
	}
	s.Must(configMap("m"))
	for selector, want := range map[string]int{
		"metadata.name=a": 1, "metadata.name!=a": 2, "spec.nodeName=n1": 2, "spec.nodeName=": 1, "spec.nodeName!=n1": 1, "status.phase=Pending": 3,
		"status.phase!=Running,spec.nodeName=n1": 2, "spec.restartPolicy==Always": 3, "metadata.namespace=default,metadata.name=b": 1, "spec.schedulerName=default-scheduler": 3, "metadata.name=none": 0,
	} {
		if got := must[*corev1.PodList](t)(client.Pods("").List(ctx, metav1.ListOptions{FieldSelector: selector})); len(got.Items) != want {
			t.Errorf("%s: %d pods, want %d", selector, len(got.Items), want)
		}
	}
	for path, says := range map[string]string{
		"pods?fieldSelector=spec.hostname%3Dx":              `field label not supported: spec.hostname`,
		"pods?fieldSelector=metadata.labels.app%3Da":        `field label not supported: metadata.labels.app`,
		"pods?fieldSelector=spec.nodeName%3E5":              `invalid selector`,
		"pods?fieldSelector=x":                              `invalid selector`,
		"pods?labelSelector=a%3D%3D%3Db":                    `unable to parse requirement`,
		"pods?labelSelector=a+in+(":                         `unable to parse requirement`,
		"pods?labelSelector=-%3D-":                          `unable to parse requirement`,
		"configmaps?fieldSelector=spec.nodeName%3Dx":        `not a known field selector: only "metadata.name", "metadata.namespace"`,
		"pods?resourceVersion=-1":                           `invalid`,
		"pods?resourceVersionMatch=Exact":                   `resourceVersionMatch`,
		"pods?resourceVersionMatch=Never":                   `resourceVersionMatch`,
		"pods?resourceVersion=0&resourceVersionMatch=Exact": `resourceVersionMatch`,
		"pods?limit=x":                                      ``,
		"pods?continue=abc":                                 `continue`,
		"pods?continue=abc&resourceVersion=1":               `continue`,
		"pods?watch=1&resourceVersionMatch=NotOlderThan":    `resourceVersionMatch`,
		"pods?watch=1&sendInitialEvents=true":               `sendInitialEvents`,
		"pods?sendInitialEvents=true":                       `sendInitialEvents`,
		"pods?watch=1&resourceVersion=x":                    `invalid`,
		"pods?timeoutSeconds=x":                             ``,
	} {
		resp, text, status := send(t, s.HTTP(), http.MethodGet, "/api/v1/namespaces/default/"+path, nil, nil)
		if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(status.Message, says) {
			t.Errorf("%s: %d %.300s", path, resp.StatusCode, text)
		}
	}
}

func TestCollectionsAreDeletedAsAsked(t *testing.T) {
	s, ctx := start(t), t.Context()
	client := s.Client("").CoreV1()
	maps := client.ConfigMaps("default")
	left := func() (names []string) {
		for _, m := range must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{})).Items {
			names = append(names, m.Name)
		}
		return names
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		m := configMap(name)
		m.Labels = map[string]string{"is": name}
		if name == "d" {
			m.Finalizers = []string{"example.com/hold"}
		}
		s.Must(m)
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}, metav1.ListOptions{}); err != nil || len(left()) != 4 {
		t.Errorf("a dry run: %v, left %v", err, left())
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "is notin (b, c, d)"}); err != nil || len(left()) != 3 {
		t.Errorf("by label: %v, left %v", err, left())
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=b"}); err != nil || len(left()) != 2 {
		t.Errorf("by field: %v, left %v", err, left())
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "is=nothing"}); err != nil || len(left()) != 2 {
		t.Errorf("nothing: %v, left %v", err, left())
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationOrphan)}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	for _, m := range must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{})).Items {
		if m.DeletionTimestamp == nil || m.Finalizers[len(m.Finalizers)-1] != metav1.FinalizerOrphanDependents {
			t.Errorf("%s: %v %v", m.Name, m.DeletionTimestamp, m.Finalizers)
		}
	}
	resp, text, _ := send(t, s.HTTP(), http.MethodDelete, "/api/v1/namespaces/default/configmaps?labelSelector=(", nil, nil)
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a wrong selector: %d %s", resp.StatusCode, text)
	}
	resp, text, _ = send(t, s.HTTP(), http.MethodDelete, "/api/v1/namespaces", nil, nil)
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("all namespaces at once: %d %s", resp.StatusCode, text)
	}
	for _, body := range []string{`{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Sideways"}`, `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Orphan","orphanDependents":true}`} {
		resp, text, _ := send(t, s.HTTP(), http.MethodDelete, "/api/v1/namespaces/default/configmaps/d", nil, strings.NewReader(body))
		if resp.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", body, resp.StatusCode, text)
		}
	}
}
