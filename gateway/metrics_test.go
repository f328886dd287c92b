package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/gateway/gatewaytest"
	words "github.com/troupe-sh/troupe/runtime/pod"
)

var measuredAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func rates(cpu, memory int64) words.Rates {
	return words.Rates{CPU: cpu, Memory: memory, At: measuredAt, Window: 15 * time.Second}
}

// measured stores pods of both kinds of life and lets the machine use something:
// a and b run and are measured, c runs and is not, d was measured and has ended.
func measured(t *testing.T, s *gatewaytest.Server) {
	t.Helper()
	s.Must(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: gatewaytest.Node, Labels: map[string]string{"disk": "ssd"}}})
	s.Must(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "elsewhere"}})
	u := &words.Usage{Node: rates(1_500_000_000, 3<<30), Pods: map[types.UID]words.PodUsage{}}
	for i, name := range []string{"a", "b", "c", "d"} {
		o := s.Must(pod(name)).DeepCopyObject().(*corev1.Pod)
		if o.Status.Phase = corev1.PodRunning; name == "d" {
			o.Status.Phase = corev1.PodSucceeded
		}
		s.Change(command.Change{Op: command.Status, Key: api.KeyOf(o), Object: o, UID: o.UID})
		if name != "c" {
			u.Pods[o.UID] = words.PodUsage{At: measuredAt, Window: 15 * time.Second, Containers: []words.ContainerUsage{
				{Name: "c", Rates: rates(250_000_000, int64(i+1)<<20)}, {Name: "side", Rates: rates(1, 1<<10)},
			}}
		}
	}
	s.Measure(u)
}

func TestMetrics(t *testing.T) {
	s, ctx := start(t), t.Context()
	for _, content := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		config := s.Config()
		config.ContentType = content
		c, err := metricsclient.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		of := c.MetricsV1beta1()
		if content == "application/json" {
			if _, err := of.PodMetricses("").List(ctx, metav1.ListOptions{}); !apierrors.IsServiceUnavailable(err) {
				t.Errorf("before anything is measured: %v", err)
			}
			measured(t, s)
		}
		list, err := of.PodMetricses("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 2 || list.Items[0].Name != "a" || list.Items[1].Name != "b" {
			t.Fatalf("%s: %+v", content, list.Items)
		}
		a := list.Items[0]
		if got := a.Containers[0].Usage; got.Cpu().String() != "250m" || got.Memory().String() != "1Mi" || a.Containers[0].Name != "c" {
			t.Errorf("%s: %+v", content, a.Containers)
		}
		if cpu := a.Containers[1].Usage.Cpu().String(); cpu != "1n" {
			t.Errorf("%s: %s", content, cpu)
		}
		if !a.Timestamp.Time.Equal(measuredAt) || a.Window.Duration != 15*time.Second || a.Labels["app"] != "a" {
			t.Errorf("%s: %+v", content, a)
		}
		list, err = of.PodMetricses("").List(ctx, metav1.ListOptions{LabelSelector: "app in (b, c)"})
		if err != nil || len(list.Items) != 1 || list.Items[0].Name != "b" {
			t.Errorf("%s: by label: %+v, %v", content, list, err)
		}
		list, err = of.PodMetricses("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=a"})
		if err != nil || len(list.Items) != 1 || list.Items[0].Name != "a" {
			t.Errorf("%s: by field: %+v, %v", content, list, err)
		}
		one, err := of.PodMetricses("default").Get(ctx, "b", metav1.GetOptions{})
		if err != nil || one.Containers[0].Usage.Memory().Value() != 2<<20 {
			t.Errorf("%s: %+v, %v", content, one, err)
		}
		for _, name := range []string{"c", "d", "none"} {
			_, err := of.PodMetricses("default").Get(ctx, name, metav1.GetOptions{})
			if !apierrors.IsNotFound(err) || err.Error() != `pods.metrics.k8s.io "`+name+`" not found` {
				t.Errorf("%s: %s: %v", content, name, err)
			}
		}
		nodes, err := of.NodeMetricses().List(ctx, metav1.ListOptions{})
		if err != nil || len(nodes.Items) != 1 || nodes.Items[0].Name != gatewaytest.Node {
			t.Fatalf("%s: %+v, %v", content, nodes, err)
		}
		if n := nodes.Items[0]; n.Usage.Cpu().String() != "1500m" || n.Usage.Memory().String() != "3Gi" || n.Labels["disk"] != "ssd" {
			t.Errorf("%s: %+v", content, n)
		}
		if _, err := of.NodeMetricses().Get(ctx, "elsewhere", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: of another machine: %v", content, err)
		}
	}
}

func TestMetricsAsATable(t *testing.T) {
	s := start(t)
	measured(t, s)
	for path, want := range map[string][][]any{
		"namespaces/default/pods":   {{"a", "250000001n", "1025Ki", "15s"}, {"b", "250000001n", "2049Ki", "15s"}},
		"namespaces/default/pods/a": {{"a", "250000001n", "1025Ki", "15s"}},
		"nodes":                     {{"n1", "1500m", "3Gi", "15s"}},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/apis/metrics.k8s.io/v1beta1/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
		answer, err := s.HTTP().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		var table metav1.Table
		if err := json.Unmarshal(b, &table); err != nil || table.Kind != "Table" {
			t.Fatalf("%s: %v: %s", path, err, b)
		}
		var got [][]any
		for _, row := range table.Rows {
			got = append(got, row.Cells)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", path, d)
		}
	}
}

func TestMetricsAreDiscovered(t *testing.T) {
	s := start(t)
	groups, resources, err := s.Client("").Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range groups {
		names = append(names, g.Name)
	}
	if d := cmp.Diff([]string{"", "authentication.k8s.io", "authorization.k8s.io", "metrics.k8s.io"}, names); d != "" {
		t.Errorf("groups: %s", d)
	}
	verbs := map[string][]string{}
	for _, l := range resources {
		for _, r := range l.APIResources {
			if l.GroupVersion == "metrics.k8s.io/v1beta1" {
				verbs[r.Kind] = r.Verbs
			}
		}
	}
	if d := cmp.Diff(map[string][]string{"PodMetrics": {"get", "list"}, "NodeMetrics": {"get", "list"}}, verbs); d != "" {
		t.Errorf("resources: %s", d)
	}
}
