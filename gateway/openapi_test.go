package gateway

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-sh/troupe/cluster/door"
)

var update = flag.Bool("update", false, "write the embedded documents anew")

// The documents are Kubernetes' of the pinned release, without the paths that
// are not served and the types that nothing refers to then.
func TestOpenAPIIsKubernetesCutToWhatIsServed(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatalf("where is k8s.io/kubernetes: %v", err)
	}
	specs := filepath.Join(strings.TrimSpace(string(out)), "api", "openapi-spec")
	served := map[string]bool{}
	storages, err := door.New(door.Config{}).Storages()
	if err != nil {
		t.Fatal(err)
	}
	for path := range storages {
		served[path] = true
	}
	for path := range streams(nil, nilStreams{nil}) {
		served[path] = true
	}

	v2 := cut(t, filepath.Join(specs, "swagger.json"), served)
	v3 := cut(t, filepath.Join(specs, "v3", "api__v1_openapi.json"), served)
	doc2, err := openapi_v2.ParseDocument(v2)
	if err != nil {
		t.Fatal(err)
	}
	doc3, err := openapi_v3.ParseDocument(v3)
	if err != nil {
		t.Fatal(err)
	}
	pb2, err := proto.MarshalOptions{Deterministic: true}.Marshal(doc2)
	if err != nil {
		t.Fatal(err)
	}
	pb3, err := proto.MarshalOptions{Deterministic: true}.Marshal(doc3)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"v2.json.gz": v2, "v3.json.gz": v3, "v2.pb.gz": pb2, "v3.pb.gz": pb3} {
		name = filepath.Join("openapi", name)
		if *update {
			if err := os.WriteFile(name, compress(t, want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		packed, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what Kubernetes' document gives: go test ./gateway -run OpenAPI -update", name)
		}
	}
}

// nilStreams serves nothing: only the names of the paths are wanted.
type nilStreams struct{ Streams }

func compress(t *testing.T, data []byte) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// cut keeps the paths of what is served and what they refer to.
func cut(t *testing.T, file string, served map[string]bool) []byte {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	doc["info"] = map[string]any{"title": "Troupe", "version": "v1"}
	delete(doc, "security")
	delete(doc, "securityDefinitions")
	paths := doc["paths"].(map[string]any)
	for path := range paths {
		if !served[resourceOf(path)] {
			delete(paths, path)
		}
	}
	kept := map[string]bool{}
	follow(doc, paths, kept)
	prune(doc, "definitions", "#/definitions/", kept)
	prune(doc, "parameters", "#/parameters/", kept)
	if components, ok := doc["components"].(map[string]any); ok {
		delete(components, "securitySchemes")
		prune(components, "schemas", "#/components/schemas/", kept)
	}
	out, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// resourceOf is the resource, with sub-resource, that a path of core/v1 serves.
func resourceOf(path string) string {
	rest, ok := strings.CutPrefix(path, "/api/v1/")
	if !ok {
		return ""
	}
	rest = strings.TrimPrefix(rest, "namespaces/{namespace}/")
	var parts []string
	for _, p := range strings.Split(rest, "/") {
		if p != "{name}" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/")
}

func follow(doc map[string]any, v any, kept map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok && !kept[ref] {
			kept[ref] = true
			var target any = doc
			for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
				target = target.(map[string]any)[step]
			}
			follow(doc, target, kept)
		}
		for _, x := range v {
			follow(doc, x, kept)
		}
	case []any:
		for _, x := range v {
			follow(doc, x, kept)
		}
	}
}

func prune(in map[string]any, member, prefix string, kept map[string]bool) {
	all, ok := in[member].(map[string]any)
	if !ok {
		return
	}
	for name := range all {
		if !kept[prefix+name] {
			delete(all, name)
		}
	}
}
