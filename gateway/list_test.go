package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPagesShowOneMoment(t *testing.T) {
	s, ctx := start(t), t.Context()
	c := s.Client("")
	s.Must(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default-2"}})
	maps := c.CoreV1().ConfigMaps("default")
	for i := range 10 {
		for _, ns := range []string{"default", "default-2"} {
			m := configMap(fmt.Sprintf("m-%d", i))
			m.Namespace = ns
			must[*corev1.ConfigMap](t)(c.CoreV1().ConfigMaps(ns).Create(ctx, m, none))
		}
	}
	for _, namespace := range []string{"default", ""} {
		var got []string
		var version string
		o := metav1.ListOptions{Limit: 3}
		want := 10
		if namespace == "" {
			want = 20
		}
		for page := 0; ; page++ {
			list := must[*corev1.ConfigMapList](t)(c.CoreV1().ConfigMaps(namespace).List(ctx, o))
			if version == "" {
				version = list.ResourceVersion
			}
			if list.ResourceVersion != version {
				t.Errorf("page %d is of version %s, the first of %s", page, list.ResourceVersion, version)
			}
			for _, m := range list.Items {
				got = append(got, m.Namespace+"/"+m.Name)
			}
			if list.Continue == "" {
				break
			}
			if left := want - len(got); *list.RemainingItemCount != int64(left) {
				t.Errorf("page %d says that %d remain, not %d", page, *list.RemainingItemCount, left)
			}
			o.Continue = list.Continue
			// What comes and goes meanwhile is not seen.
			must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap(fmt.Sprintf("m-%d-late", page)), none))
			if err := maps.Delete(ctx, fmt.Sprintf("m-%d-late", page), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) != want {
			t.Errorf("namespace %q: %d of %d objects: %v", namespace, len(got), want, got)
		}
		for i := 1; i < len(got); i++ {
			if got[i] <= got[i-1] && strings.Split(got[i], "/")[0] == strings.Split(got[i-1], "/")[0] {
				t.Errorf("%s after %s", got[i], got[i-1])
			}
		}
	}

	t.Run("a selector counts what it selects", func(t *testing.T) {
		label(t, c, "m-7", "x")
		label(t, c, "m-9", "x")
		list := must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{LabelSelector: "tier=x", Limit: 1}))
		if len(list.Items) != 1 || list.Items[0].Name != "m-7" || list.Continue == "" || list.RemainingItemCount != nil {
			t.Errorf("first page %+v", list.ListMeta)
		}
		list = must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{LabelSelector: "tier=x", Limit: 1, Continue: list.Continue}))
		if len(list.Items) != 1 || list.Items[0].Name != "m-9" || list.Continue != "" {
			t.Errorf("second page %+v", list)
		}
	})

	t.Run("a moment that is no longer held is gone, with a token to go on", func(t *testing.T) {
		first := must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{Limit: 4}))
		for i := range 64 { // as many as are held
			label(t, c, "m-0", fmt.Sprint(i))
			must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{Limit: 1}))
		}
		_, err := maps.List(ctx, metav1.ListOptions{Limit: 4, Continue: first.Continue})
		if !apierrors.IsResourceExpired(err) {
			t.Fatalf("got %v", err)
		}
		token := err.(apierrors.APIStatus).Status().Continue
		rest := must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{Continue: token}))
		if len(rest.Items) != 6 || rest.Items[0].Name != "m-4" {
			t.Errorf("the rest is %d objects", len(rest.Items))
		}
	})
}

func TestListsOfAVersion(t *testing.T) {
	s, ctx := start(t), t.Context()
	c := s.Client("")
	maps := c.CoreV1().ConfigMaps("default")
	first := must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("a"), none))
	must[*corev1.ConfigMap](t)(maps.Create(ctx, configMap("b"), none))
	list := func(o metav1.ListOptions) (int, error) {
		l, err := maps.List(ctx, o)
		if err != nil {
			return 0, err
		}
		return len(l.Items), nil
	}
	now := must[*corev1.ConfigMapList](t)(maps.List(ctx, metav1.ListOptions{})).ResourceVersion
	for _, o := range []metav1.ListOptions{
		{},
		{ResourceVersion: "0"},
		{ResourceVersion: first.ResourceVersion},
		{ResourceVersion: first.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan},
		{ResourceVersion: now, ResourceVersionMatch: metav1.ResourceVersionMatchExact},
	} {
		if n, err := list(o); n != 2 || err != nil {
			t.Errorf("%+v: %d objects, %v", o, n, err)
		}
	}
	if _, err := list(metav1.ListOptions{ResourceVersion: first.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact}); !apierrors.IsResourceExpired(err) {
		t.Errorf("exactly a version that is past: %v", err)
	}
	// Asked plainly: client-go would ask again and again.
	if body := get(t, s.HTTP(), "/api/v1/configmaps?resourceVersion=999999", "application/json", http.StatusGatewayTimeout); !strings.Contains(body, "Too large resource version") {
		t.Errorf("a version to come: %s", body)
	}
	if _, err := list(metav1.ListOptions{ResourceVersion: "x"}); !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) {
		t.Errorf("no version: %v", err)
	}
	if _, err := list(metav1.ListOptions{Continue: "x"}); !apierrors.IsBadRequest(err) {
		t.Errorf("no token: %v", err)
	}
	if got := must[*corev1.ConfigMap](t)(maps.Get(ctx, "a", metav1.GetOptions{ResourceVersion: now})); got.Name != "a" {
		t.Error("a get of a version")
	}
}

// get asks for a path and returns the body.
func get(t *testing.T, c *http.Client, path, accept string, code int) string {
	t.Helper()
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil))
	req.Header.Set("Accept", accept)
	resp := must[*http.Response](t)(c.Do(req))
	defer resp.Body.Close()
	body := string(must[[]byte](t)(io.ReadAll(resp.Body)))
	if resp.StatusCode != code {
		t.Errorf("%s: %s %s", path, resp.Status, body)
	}
	return body
}

func TestTables(t *testing.T) {
	s := start(t)
	c := s.Client("")
	must[*corev1.Pod](t)(c.CoreV1().Pods("default").Create(t.Context(), pod("a"), none))
	body := get(t, s.HTTP(), "/api/v1/namespaces/default/pods", "application/json;as=Table;v=v1;g=meta.k8s.io", http.StatusOK)
	var table metav1.Table
	if err := json.Unmarshal([]byte(body), &table); err != nil {
		t.Fatal(err)
	}
	var columns []string
	for _, d := range table.ColumnDefinitions {
		if d.Priority == 0 {
			columns = append(columns, d.Name)
		}
	}
	if got := strings.Join(columns, " "); got != "Name Ready Status Restarts Age" {
		t.Errorf("columns %s", got)
	}
	if len(table.Rows) != 1 || fmt.Sprint(table.Rows[0].Cells[:3]) != "[a 0/1 Pending]" {
		t.Errorf("rows %+v", table.Rows)
	}
	for _, accept := range []string{"application/yaml", "application/vnd.kubernetes.protobuf"} {
		if body := get(t, s.HTTP(), "/api/v1/namespaces/default/pods/a", accept, http.StatusOK); !strings.Contains(body, "busybox") {
			t.Errorf("%s: %s", accept, body)
		}
	}
}
