package gateway_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
)

// served is what a request is answered, without a socket between.
func served(h http.Handler, method, path, contentType string, body []byte) (code int, text string) {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	data, _ := io.ReadAll(w.Body)
	return w.Code, string(data)
}

// Kubernetes answers some patches that make no sense as if the fault were its
// own. What panics says "hit a bug" instead.
func FuzzPatches(f *testing.F) {
	s := gatewaytest.Start(f, echo{})
	s.Must(pod("p"))
	h := s.Gateway.Handler(nil)
	kinds := []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType}
	f.Add(byte(0), "", []byte(`[{"op":"add","path":"/spec/containers/0/env/-","value":{"name":"a"}},{"op":"move","from":"/spec","path":"/spec/x"},{"op":"copy","from":"","path":"/metadata/labels/a~1b"}]`))
	f.Add(byte(0), "", []byte(`[{"op":"test","path":"/spec/containers/-1","value":null},{"op":"remove","path":"/metadata/labels"},{"op":"replace","path":"","value":{}}]`))
	f.Add(byte(1), "status", []byte(`{"metadata":{"labels":null,"managedFields":[{}]},"status":{"containerStatuses":[{}]}}`))
	f.Add(byte(2), "", []byte(`{"spec":{"containers":[{"name":"main","$patch":"delete"}],"$setElementOrder/containers":[{"name":"x"}],"$retainKeys":["a"],"$deleteFromPrimitiveList/x":[1]}}`))
	f.Add(byte(3), "", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p, managedFields: []}\nspec: {containers: [{name: main, ports: [{containerPort: 1}, {containerPort: 1}]}]}\n"))
	f.Add(byte(3), "status", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus: {conditions: [{type: a}, {type: a}], podIPs: [{ip: x}]}\n"))
	f.Fuzz(func(t *testing.T, kind byte, sub string, patch []byte) {
		path := "/api/v1/namespaces/default/pods/p"
		if sub == "status" {
			path += "/status"
		}
		code, text := served(h, http.MethodPatch, path+"?dryRun=All&fieldManager=fuzz", string(kinds[int(kind)%len(kinds)]), patch)
		if strings.Contains(text, "hit a bug") {
			t.Errorf("%d %s", code, text)
		}
	})
}

func FuzzSelectors(f *testing.F) {
	s := gatewaytest.Start(f, echo{})
	s.Must(pod("p"))
	h := s.Gateway.Handler(nil)
	f.Add("app=p", "metadata.name=p", "", "", "")
	f.Add("a in (b, c),!d,e!=f,g>1", "spec.nodeName!=,status.phase=x\\,y", "10", "0", "NotOlderThan")
	f.Add("x notin ()", "=", "-1", "18446744073709551616", "Exact")
	f.Fuzz(func(t *testing.T, labels, fields, limit, version, match string) {
		q := url.Values{}
		for name, value := range map[string]string{"labelSelector": labels, "fieldSelector": fields, "limit": limit, "resourceVersion": version, "resourceVersionMatch": match} {
			if value != "" {
				q.Set(name, value)
			}
		}
		if len(version) > 4 {
			q.Del("resourceVersion") // one that is to come is waited for
		}
		code, text := served(h, http.MethodGet, "/api/v1/pods?"+q.Encode(), "", nil)
		if code >= 500 && code != http.StatusGatewayTimeout {
			t.Errorf("%d %s", code, text)
		}
	})
}

func FuzzContinue(f *testing.F) {
	s := gatewaytest.Start(f, echo{})
	s.Must(pod("p"))
	h := s.Gateway.Handler(nil)
	f.Add("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiZGVmYXVsdFx0cFx1MDAwMCJ9")
	f.Add("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Miwic3RhcnQiOiIuLi8uLi8ifQ")
	f.Fuzz(func(t *testing.T, token string) {
		code, text := served(h, http.MethodGet, "/api/v1/pods?limit=1&continue="+url.QueryEscape(token), "", nil)
		if code >= 500 {
			t.Errorf("%d %s", code, text)
		}
	})
}

// Any path, with any method.
func FuzzPaths(f *testing.F) {
	s := gatewaytest.Start(f, echo{})
	s.Must(pod("p"))
	h := s.Gateway.Handler(nil)
	f.Add("GET", "/api/v1/namespaces/default/pods/p/log?tailLines=x&sinceTime=y&container=%00")
	f.Add("DELETE", "/api/v1/namespaces/default/pods?propagationPolicy=x&gracePeriodSeconds=y&dryRun=z")
	f.Add("POST", "/api/v1/namespaces//pods/../p/exec?command=&stdin=1")
	f.Add("PATCH", "/apis/metrics.k8s.io/v1beta1/nodes//%2f?timeout=-1s")
	f.Add("OPTIONS", "/openapi/v3/api/v1?hash=x")
	f.Fuzz(func(t *testing.T, method, path string) {
		r, err := http.NewRequest(method, path, nil)
		if err != nil || !strings.HasPrefix(path, "/") || r.URL.Query().Has("watch") || strings.Contains(path, "/watch/") {
			return
		}
		r.RequestURI, r.Body = path, http.NoBody
		if v := r.URL.Query().Get("resourceVersion"); len(v) > 1 {
			return // one that is to come is waited for
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if strings.Contains(w.Body.String(), "hit a bug") {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	})
}
