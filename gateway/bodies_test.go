package gateway_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"

	"github.com/troupe-sh/troupe/api"
)

const maps = "/api/v1/namespaces/default/configmaps"

func TestBodiesOfEveryType(t *testing.T) {
	s := start(t)
	c := s.HTTP()
	asJSON := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"m-"},"data":{"a":"1"}}`
	var m corev1.ConfigMap
	if err := json.Unmarshal([]byte(asJSON), &m); err != nil {
		t.Fatal(err)
	}
	asProto := must[[]byte](t)(api.Encode(&m))
	asCBOR := must[[]byte](t)(runtime.Encode(cbor.NewSerializer(api.Scheme, api.Scheme), &m))
	for name, q := range map[string]struct {
		contentType, body string
		code              int
		says              string
	}{
		"JSON":                   {"application/json", asJSON, http.StatusCreated, ""},
		"JSON with its charset":  {"application/json; charset=utf-8", asJSON, http.StatusCreated, ""},
		"no type is JSON":        {"", asJSON, http.StatusCreated, ""},
		"YAML":                   {"application/yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  generateName: m-\ndata:\n  a: '1'\n", http.StatusCreated, ""},
		"KYAML":                  {"application/yaml", "---\n{\n  apiVersion: \"v1\",\n  kind: \"ConfigMap\",\n  # a comment\n  metadata: {\n    generateName: \"m-\",\n  },\n  data: {\n    a: \"1\",\n  },\n}\n", http.StatusCreated, ""},
		"YAML that is JSON":      {"application/yaml", asJSON, http.StatusCreated, ""},
		"protobuf":               {runtime.ContentTypeProtobuf, string(asProto), http.StatusCreated, ""},
		"CBOR":                   {runtime.ContentTypeCBOR, string(asCBOR), http.StatusUnsupportedMediaType, "accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		"XML":                    {"application/xml", "<a/>", http.StatusUnsupportedMediaType, "accepted media types include: application/json"},
		"no type at all":         {";;;", asJSON, http.StatusUnsupportedMediaType, ""},
		"nothing":                {"application/json", "", http.StatusBadRequest, ""},
		"half of it":             {"application/json", asJSON[:40], http.StatusBadRequest, "unexpected"},
		"two of them":            {"application/json", asJSON + asJSON, http.StatusBadRequest, ""},
		"a list":                 {"application/json", "[" + asJSON + "]", http.StatusBadRequest, ""},
		"null":                   {"application/json", "null", http.StatusUnprocessableEntity, "name or generateName is required"},
		"no UTF-8":               {"application/json", strings.Replace(asJSON, `"1"`, "\"\xff\xfe\"", 1), http.StatusCreated, ""},
		"a wrong type":           {"application/json", strings.Replace(asJSON, `{"a":"1"}`, `["a"]`, 1), http.StatusBadRequest, "cannot unmarshal array into Go struct field ConfigMap.data"},
		"YAML with a tab":        {"application/yaml", "apiVersion: v1\nkind:\tConfigMap\n\tmetadata: x\n", http.StatusBadRequest, "found a tab character"},
		"YAML with a bomb":       {"application/yaml", bomb(), http.StatusBadRequest, "excessive aliasing"},
		"deep JSON":              {"application/json", strings.Replace(asJSON, `{"a":"1"}`, strings.Repeat(`{"a":`, 100000)+"1"+strings.Repeat("}", 100000), 1), http.StatusBadRequest, "exceeded max depth"},
		"deep YAML":              {"application/yaml", "apiVersion: v1\nkind: ConfigMap\ndata: " + strings.Repeat("[", 20000), http.StatusBadRequest, ""},
		"protobuf cut short":     {runtime.ContentTypeProtobuf, string(asProto[:len(asProto)-3]), http.StatusBadRequest, ""},
		"protobuf without magic": {runtime.ContentTypeProtobuf, asJSON, http.StatusBadRequest, "does not appear to be a protobuf message"},
		"another kind":           {"application/json", strings.Replace(asJSON, "ConfigMap", "Secret", 1), http.StatusBadRequest, "Secret in version \"v1\" cannot be handled as a ConfigMap"},
		"no such kind":           {"application/json", strings.Replace(asJSON, "ConfigMap", "Unicorn", 1), http.StatusBadRequest, `no kind "Unicorn" is registered for version "v1"`},
		"another version":        {"application/json", strings.Replace(asJSON, `"v1"`, `"v9"`, 1), http.StatusBadRequest, `no kind "ConfigMap" is registered for version "v9"`},
		"another namespace":      {"application/json", strings.Replace(asJSON, `"generateName":"m-"`, `"generateName":"m-","namespace":"other"`, 1), http.StatusBadRequest, "the namespace of the provided object does not match the namespace sent on the request"},
		"neither name nor base":  {"application/json", strings.Replace(asJSON, `"generateName":"m-"`, ``, 1), http.StatusUnprocessableEntity, "name or generateName is required"},
	} {
		header := map[string]string{"Content-Type": q.contentType}
		resp, text, status := send(t, c, http.MethodPost, maps, header, strings.NewReader(q.body))
		if resp.StatusCode != q.code || !strings.Contains(status.Message, q.says) || q.code >= 400 && status.Kind != "Status" {
			t.Errorf("%s: %d %.300s, want %d %s", name, resp.StatusCode, text, q.code, q.says)
		}
	}
}

// bomb is YAML that grows by its references.
func bomb() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String()
}

func TestAnswersOfEveryType(t *testing.T) {
	s := start(t)
	c := s.HTTP()
	s.Must(configMap("a"))
	for name, q := range map[string]struct {
		path, accept string
		code         int
		contentType  string
		has          string
	}{
		"nothing asked":         {maps + "/a", "", http.StatusOK, "application/json", `"kind":"ConfigMap"`},
		"anything":              {maps + "/a", "*/*", http.StatusOK, "application/json", `"kind":"ConfigMap"`},
		"YAML":                  {maps + "/a", "application/yaml", http.StatusOK, "application/yaml", "kind: ConfigMap"},
		"protobuf":              {maps + "/a", runtime.ContentTypeProtobuf, http.StatusOK, runtime.ContentTypeProtobuf, "k8s\x00"},
		"the first that is had": {maps + "/a", "application/cbor, application/yaml, application/json", http.StatusOK, "application/yaml", "kind: ConfigMap"},
		"metadata alone":        {maps + "/a", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", http.StatusOK, "application/json", `"kind":"PartialObjectMetadata"`},
		"metadata of all":       {maps, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", http.StatusOK, "application/json", `"kind":"PartialObjectMetadataList"`},
		"metadata as protobuf":  {maps, runtime.ContentTypeProtobuf + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", http.StatusOK, runtime.ContentTypeProtobuf, "PartialObjectMetadataList"},
		"a table of one":        {maps + "/a", "application/json;as=Table;g=meta.k8s.io;v=v1", http.StatusOK, "application/json", `"kind":"Table"`},
		"CBOR":                  {maps + "/a", "application/cbor", http.StatusNotAcceptable, "application/json", "say Accept: application/json or application/yaml or application/vnd.kubernetes.protobuf"},
		"a picture":             {maps + "/a", "image/png", http.StatusNotAcceptable, "application/json", "say Accept: application/json"},
		"a watch of CBOR":       {maps + "?watch=1", "application/cbor", http.StatusNotAcceptable, "application/json", "say Accept: application/json"},
		"an error as YAML":      {maps + "/none", "application/yaml", http.StatusNotFound, "application/yaml", "reason: NotFound"},
		"an error as protobuf":  {maps + "/none", runtime.ContentTypeProtobuf, http.StatusNotFound, runtime.ContentTypeProtobuf, "NotFound"},
		"an empty list":         {"/api/v1/namespaces/none/configmaps", "application/json", http.StatusOK, "application/json", `"items":[]`},
		"pretty":                {maps + "/a?pretty=true", "application/json", http.StatusOK, "application/json", "\n  \"kind\": \"ConfigMap\""},
	} {
		resp, text, _ := send(t, c, http.MethodGet, q.path, map[string]string{"Accept": q.accept}, nil)
		if resp.StatusCode != q.code || !strings.HasPrefix(resp.Header.Get("Content-Type"), q.contentType) || !strings.Contains(text, q.has) {
			t.Errorf("%s: %d %s %.300q", name, resp.StatusCode, resp.Header.Get("Content-Type"), text)
		}
	}
}

func TestEveryMistakeAtOnceWithItsField(t *testing.T) {
	s := start(t)
	body := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"Big","labels":{"-":"x y"},"annotations":{"":"x"}},"spec":{
		"restartPolicy":"Sometimes","nodeName":"No Node","dnsPolicy":"x",
		"hostAliases":[{"ip":"300.1.1.1"}],
		"volumes":[{"name":"v"},{"name":"v","emptyDir":{}},{"name":"w","emptyDir":{},"hostPath":{"path":"/x"}}],
		"containers":[
			{"name":"a b","image":"","ports":[{"containerPort":0},{"containerPort":70000,"protocol":"X"}],"imagePullPolicy":"Now"},
			{"name":"c","image":"x","env":[{"name":"A=B"}],"volumeMounts":[{"name":"none","mountPath":""}],"resources":{"limits":{"cpu":"1"},"requests":{"cpu":"2"}}},
			{"name":"c","image":"x"}]}}`
	_, text, status := send(t, s.HTTP(), http.MethodPost, "/api/v1/namespaces/default/pods", nil, strings.NewReader(body))
	if status.Reason != metav1.StatusReasonInvalid {
		t.Fatalf("%s", text)
	}
	var got []string
	for _, c := range status.Details.Causes {
		got = append(got, c.Field)
	}
	for _, want := range []string{
		"metadata.name", "metadata.labels", "metadata.annotations", "spec.restartPolicy", "spec.nodeName", "spec.dnsPolicy",
		"spec.hostAliases[0].ip", "spec.volumes[1].name", "spec.volumes[2].hostPath",
		"spec.containers[0].name", "spec.containers[0].image", "spec.containers[0].ports[0].containerPort", "spec.containers[0].ports[1].containerPort", "spec.containers[0].ports[1].protocol", "spec.containers[0].imagePullPolicy",
		"spec.containers[1].volumeMounts[0].name", "spec.containers[1].volumeMounts[0].mountPath", "spec.containers[1].resources.requests", "spec.containers[2].name",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not named in %v", want, got)
		}
	}
}

func TestFieldsAreValidatedAsAsked(t *testing.T) {
	s := start(t)
	c := s.HTTP()
	s.Must(configMap("a"))
	s.Must(pod("p"))
	for name, q := range map[string]struct{ method, path, contentType, body, strict string }{
		"JSON":      {http.MethodPost, maps, "application/json", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"m-","nome":"x"},"data":{"a":"1","a":"2"}}`, `unknown field "metadata.nome", duplicate field "data.a"`},
		"YAML":      {http.MethodPost, maps, "application/yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: m-}\ndota: {}\ndata: {a: '1'}\n", `unknown field "dota"`},
		"double":    {http.MethodPost, maps, "application/yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: m-}\ndata: {a: '1'}\ndata: {b: '1'}\n", `key "data" already set in map`},
		"deep":      {http.MethodPost, "/api/v1/namespaces/default/pods", "application/json", `{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"m-"},"spec":{"containers":[{"name":"a","image":"b","Image":"c","prots":[]}]}}`, `unknown field "spec.containers[0].Image", unknown field "spec.containers[0].prots"`},
		"update":    {http.MethodPut, maps + "/a", "application/json", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"x":1}`, `unknown field "x"`},
		"merge":     {http.MethodPatch, maps + "/a", "application/merge-patch+json", `{"x":1}`, `unknown field "x"`},
		"JSON path": {http.MethodPatch, maps + "/a", "application/json-patch+json", `[{"op":"add","path":"/x","value":1}]`, `unknown field "x"`},
		"strategic": {http.MethodPatch, "/api/v1/namespaces/default/pods/p", "application/strategic-merge-patch+json", `{"spec":{"x":1}}`, `unknown field "spec.x"`},
	} {
		for _, mode := range []string{"Strict", "Warn", "Ignore", ""} {
			path := q.path + "?dryRun=All"
			if mode != "" {
				path += "&fieldValidation=" + mode
			}
			resp, text, status := send(t, c, q.method, path, map[string]string{"Content-Type": q.contentType}, strings.NewReader(q.body))
			warned := strings.ReplaceAll(strings.Join(resp.Header.Values("Warning"), ", "), `\"`, `"`)
			switch mode {
			case "Strict":
				if resp.StatusCode < 400 || resp.StatusCode >= 500 || !strings.Contains(status.Message, q.strict) {
					t.Errorf("%s, strictly: %d %s", name, resp.StatusCode, text)
				}
			case "Ignore":
				if resp.StatusCode >= 300 || warned != "" {
					t.Errorf("%s, ignored: %d %s; warned %s", name, resp.StatusCode, text, warned)
				}
			default:
				for _, field := range strings.Split(q.strict, ", ") {
					if resp.StatusCode >= 300 || !strings.Contains(warned, field) {
						t.Errorf("%s, warned: %d %s; warned %s", name, resp.StatusCode, text, warned)
					}
				}
			}
		}
	}
	if resp, text, status := send(t, c, http.MethodPost, maps+"?fieldValidation=Perhaps", nil, strings.NewReader(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"z"}}`)); resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(status.Message, "fieldValidation") {
		t.Errorf("no such validation: %d %s", resp.StatusCode, text)
	}
}

func TestTooLarge(t *testing.T) {
	s, ctx := start(t), t.Context()
	c := s.HTTP()
	client := s.Client("").CoreV1()
	post := func(path string, o any) (int, metav1.Status) {
		resp, _, status := send(t, c, http.MethodPost, path, nil, bytes.NewReader(must[[]byte](t)(json.Marshal(o))))
		return resp.StatusCode, status
	}
	big := func(n int) *corev1.Pod {
		p := pod("big")
		p.Kind, p.APIVersion = "Pod", "v1"
		for i := range n {
			p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("E%d", i), Value: strings.Repeat("x", 100_000)})
		}
		return p
	}
	pods := "/api/v1/namespaces/default/pods"
	if code, status := post(pods, big(32)); code != http.StatusRequestEntityTooLarge || !strings.Contains(status.Message, "limit is 3145728") {
		t.Errorf("a body over the limit: %d %+v", code, status)
	}
	if code, status := post(pods, big(20)); code != http.StatusCreated {
		t.Errorf("a pod of 2 MB: %d %+v", code, status)
	}
	// Grown by patches, each of which is small enough.
	more := must[[]byte](t)(json.Marshal(map[string]any{"status": map[string]any{"message": strings.Repeat("y", 2_000_000)}}))
	resp, text, status := send(t, c, http.MethodPatch, pods+"/big/status", map[string]string{"Content-Type": "application/merge-patch+json"}, bytes.NewReader(more))
	if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(status.Message, "at most 3145728 are stored") {
		t.Errorf("grown over the limit: %d %.300s", resp.StatusCode, text)
	}
	if got := must[*corev1.Pod](t)(client.Pods("default").Get(ctx, "big", metav1.GetOptions{})); got.Status.Message != "" {
		t.Error("it was stored all the same")
	}
	annotated := configMap("annotated")
	annotated.Annotations = map[string]string{"a": strings.Repeat("x", 257<<10)}
	if _, err := client.ConfigMaps("default").Create(ctx, annotated, none); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "metadata.annotations: Too long") {
		t.Errorf("annotations over their limit: %.200v", err)
	}
	endless, stop := endlessBody()
	defer stop()
	if resp, text, _ := send(t, c, http.MethodPost, maps, nil, endless); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a body without end: %d %.300s", resp.StatusCode, text)
	}
}
