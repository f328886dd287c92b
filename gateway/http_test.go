package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
)

// send sends a body and returns the answer, as a Status if it is one.
func send(t testing.TB, c *http.Client, method, path string, header map[string]string, body io.Reader) (*http.Response, string, metav1.Status) {
	t.Helper()
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, body))
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp := must[*http.Response](t)(c.Do(req))
	defer resp.Body.Close()
	data := must[[]byte](t)(io.ReadAll(resp.Body))
	var status metav1.Status
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		_ = json.Unmarshal(data, &status)
	}
	return resp, string(data), status
}

func TestWhatIsNotThereIsRefusedByName(t *testing.T) {
	s := start(t)
	c := s.HTTP()
	for path, want := range map[string]string{
		"/apis/apps/v1/namespaces/default/deployments":   "Troupe does not have deployments (apps/v1) yet; it has namespaces, nodes, pods, ",
		"/apis/apps/v1/namespaces/default/deployments/x": "Troupe does not have deployments (apps/v1) yet",
		"/apis/apps/v1":                           "Troupe does not have the API group apps/v1 yet",
		"/api/v1/services":                        "Troupe does not have services (v1) yet",
		"/api/v1/namespaces/default/services":     "Troupe does not have services (v1) yet",
		"/api/v1/namespaces/default/pods/a/proxy": "Troupe does not have pods/proxy (v1) yet",
		"/metrics": "nothing is served at /metrics",
	} {
		resp, _, status := send(t, c, http.MethodGet, path, nil, nil)
		if resp.StatusCode != http.StatusNotFound || status.Kind != "Status" || status.Reason != metav1.StatusReasonNotFound || !strings.HasPrefix(status.Message, want) {
			t.Errorf("%s: %d %+v", path, resp.StatusCode, status)
		}
	}
	resp, _, status := send(t, c, http.MethodPost, "/api/v1/namespaces/default/pods/a", nil, strings.NewReader("{}"))
	if resp.StatusCode != http.StatusMethodNotAllowed || status.Reason != metav1.StatusReasonMethodNotAllowed {
		t.Errorf("post to a pod: %d %+v", resp.StatusCode, status)
	}
}

func TestUnknownAndDoubledFieldsAreTold(t *testing.T) {
	s := start(t)
	c := s.HTTP()
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"%s"},"dota":{"a":"b"},"data":{"a":"1","a":"2"}}`
	resp, text, status := send(t, c, http.MethodPost, "/api/v1/namespaces/default/configmaps?fieldValidation=Strict", nil, strings.NewReader(fmt.Sprintf(body, "a")))
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(status.Message, `unknown field "dota"`) || !strings.Contains(status.Message, `duplicate field "data.a"`) {
		t.Errorf("strict: %s", text)
	}
	resp, text, _ = send(t, c, http.MethodPost, "/api/v1/namespaces/default/configmaps", nil, strings.NewReader(fmt.Sprintf(body, "b")))
	if warnings := strings.Join(resp.Header.Values("Warning"), "\n"); resp.StatusCode != http.StatusCreated || !strings.Contains(warnings, "dota") {
		t.Errorf("warn: %d %s, warnings %s", resp.StatusCode, text, warnings)
	}
}

func TestAFieldThatNothingComesOfIsWarnedOf(t *testing.T) {
	s := start(t)
	body := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"main","image":"x","securityContext":{"seLinuxOptions":{"level":"s0"}}}]}}`
	resp, text, _ := send(t, s.HTTP(), http.MethodPost, "/api/v1/namespaces/default/pods", nil, strings.NewReader(body))
	if got := resp.Header.Get("Warning"); resp.StatusCode != http.StatusCreated || !strings.Contains(got, "spec.containers[0].securityContext.seLinuxOptions: Troupe does not act on it yet") {
		t.Errorf("%d %s, warning %s", resp.StatusCode, text, got)
	}
}

func TestABodyTooLargeIsRefused(t *testing.T) {
	s := start(t)
	resp, text, _ := send(t, s.HTTP(), http.MethodPost, "/api/v1/namespaces/default/configmaps", nil, bytes.NewReader(make([]byte, 4<<20)))
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	big := configMap("a")
	big.Data["a"] = strings.Repeat("x", 2<<20)
	data := must[[]byte](t)(json.Marshal(big))
	resp, text, _ = send(t, s.HTTP(), http.MethodPost, "/api/v1/namespaces/default/configmaps", nil, bytes.NewReader(data))
	if resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a map over Kubernetes' limit: %d %.200s", resp.StatusCode, text)
	}
}

func TestTheSameRequestTwiceIsDoneOnce(t *testing.T) {
	s := start(t)
	c := s.HTTP()
	for _, name := range []string{`"name":"a"`, `"generateName":"gen-"`} {
		var first corev1.ConfigMap
		for turn := range 2 {
			body := strings.NewReader(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{` + name + `}}`)
			resp, text, _ := send(t, c, http.MethodPost, "/api/v1/namespaces/default/configmaps", map[string]string{"Idempotency-Key": "k"}, body)
			var got corev1.ConfigMap
			if err := json.Unmarshal([]byte(text), &got); err != nil || resp.StatusCode != http.StatusCreated {
				t.Fatalf("%d %s", resp.StatusCode, text)
			}
			if turn == 0 {
				first = got
			} else if got.UID != first.UID || got.Name != first.Name {
				t.Errorf("%s: made %s, then %s", name, first.Name, got.Name)
			}
		}
	}
	list := must[*corev1.ConfigMapList](t)(s.Client("").CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}))
	if len(list.Items) != 2 {
		t.Errorf("there are %d objects", len(list.Items))
	}
	for range 2 {
		resp, text, _ := send(t, c, http.MethodDelete, "/api/v1/namespaces/default/configmaps/a", map[string]string{"Idempotency-Key": "d"}, nil)
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound {
			t.Errorf("delete: %d %s", resp.StatusCode, text)
		}
	}
}

func TestDiscovery(t *testing.T) {
	s := start(t)
	d := discovery.NewDiscoveryClientForConfigOrDie(s.Config())
	for name, d := range map[string]discovery.DiscoveryInterface{"aggregated": d, "group by group": d.WithLegacy()} {
		_, lists, err := d.ServerGroupsAndResources()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		verbs := map[string]string{}
		for _, l := range lists {
			if l.GroupVersion != "v1" {
				continue
			}
			for _, r := range l.APIResources {
				verbs[r.Name] = strings.Join(r.Verbs, " ")
			}
		}
		if got := verbs["pods"]; got != "create delete deletecollection get list patch update watch" {
			t.Errorf("%s: pods can %s", name, got)
		}
		for _, r := range []string{"pods/log", "pods/exec", "pods/attach", "pods/status", "pods/binding", "replicationcontrollers/scale", "namespaces/finalize", "nodes/status", "configmaps", "secrets", "events"} {
			if verbs[r] == "" && name != "aggregated" {
				t.Errorf("%s: no %s in %v", name, r, verbs)
			}
		}
	}
	v, err := d.ServerVersion()
	if err != nil || v.Major != "1" {
		t.Errorf("version %+v, %v", v, err)
	}
	if doc, err := d.OpenAPISchema(); err != nil || doc.Definitions == nil {
		t.Errorf("OpenAPI v2: %v", err)
	}
	paths, err := d.OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	for _, contentType := range []string{"application/json", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"} {
		if data, err := paths["api/v1"].Schema(contentType); err != nil || len(data) < 100_000 {
			t.Errorf("OpenAPI v3 as %s: %d bytes, %v", contentType, len(data), err)
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		if got := get(t, s.HTTP(), path, "*/*", http.StatusOK); got != "ok" {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestStreams(t *testing.T) {
	s := start(t)
	c := s.Client("")
	p := pod("a")
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "side", Image: "busybox"})
	must[*corev1.Pod](t)(c.CoreV1().Pods("default").Create(t.Context(), p, none))
	base := "/api/v1/namespaces/default/pods/a/"
	if _, text, status := send(t, s.HTTP(), http.MethodGet, base+"log?container=main", nil, nil); status.Reason != metav1.StatusReasonBadRequest || status.Message != "pod a does not have a host assigned" {
		t.Errorf("log of a pod without a machine: %s", text)
	}
	bind(t, s, c, "a", "n1")
	for _, q := range []struct{ method, path, want string }{
		{http.MethodGet, "log?container=main&follow=true", "log of a/main follow=true\n"},
		{http.MethodGet, "log", "a container name must be specified for pod a, choose one of: [main side]"},
		{http.MethodGet, "log?container=x", "container x is not valid for pod a, choose one of: [main side]"},
		{http.MethodGet, "log?container=main&tailLines=-1", `tailLines: Invalid value: -1`},
		{http.MethodPost, "exec?container=side&command=ls&command=-l&stdout=true", "exec in a/side [\"ls\" \"-l\"]\n"},
		{http.MethodGet, "exec?container=side&stdout=true", "exec needs a command"},
		{http.MethodPost, "attach?container=main&stdout=true", "attach to a/main\n"},
		{http.MethodGet, "portforward?ports=80&ports=81", "forward to a[80 81]\n"},
	} {
		_, text, _ := send(t, s.HTTP(), q.method, base+q.path, nil, nil)
		if !strings.Contains(text, q.want) {
			t.Errorf("%s %s: %s", q.method, q.path, text)
		}
	}
	if _, _, status := send(t, s.HTTP(), http.MethodGet, "/api/v1/namespaces/default/pods/none/log", nil, nil); status.Message != `pods "none" not found` {
		t.Errorf("log of no pod: %+v", status)
	}
}

func TestOneSocketSpeaksHTTP2AndLeavesGRPCToItsHandler(t *testing.T) {
	s := start(t)
	grpc := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "grpc") })
	server := s.Gateway.Server(grpc)
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.Addr().String())
	}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	c := &http.Client{Transport: transport}
	for contentType, want := range map[string]string{"application/grpc": "grpc", "application/json": "1.36.3"} {
		resp, text, _ := send(t, c, http.MethodGet, "/version", map[string]string{"Content-Type": contentType}, nil)
		if resp.ProtoMajor != 2 || !strings.Contains(text, want) {
			t.Errorf("%s over %s: %s", contentType, resp.Proto, text)
		}
	}
}

func FuzzBodies(f *testing.F) {
	s := gatewaytest.Start(f, echo{})
	c := s.HTTP()
	f.Add("pods", "application/json", []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"a","image":"b"}]}}`))
	f.Add("configmaps", "application/yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: &x b, c: *x}\n"))
	f.Add("replicationcontrollers", "application/vnd.kubernetes.protobuf", []byte("k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x00"))
	f.Add("events", "application/json", []byte(`{"kind":"Event"}`))
	f.Add("secrets", "application/json", []byte(`[[[[`))
	f.Fuzz(func(t *testing.T, resource, contentType string, body []byte) {
		switch resource {
		case "pods", "configmaps", "replicationcontrollers", "events", "secrets":
		default:
			return
		}
		if !strings.HasPrefix(contentType, "application/") || strings.ContainsFunc(contentType, func(r rune) bool { return r < ' ' || r > '~' }) {
			return
		}
		resp, text, _ := send(t, c, http.MethodPost, "/api/v1/namespaces/default/"+resource+"?dryRun=All", map[string]string{"Content-Type": contentType}, bytes.NewReader(body))
		if resp.StatusCode >= http.StatusInternalServerError {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
	})
}
