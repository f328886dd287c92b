package gateway

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed" // the documents
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// The descriptions of the API that clients ask for: Kubernetes' own, cut down
// to what is served here, compressed. go test ./gateway -run OpenAPI -update
// writes them. They are sent as they lie here, so they cost no memory.
var (
	//go:embed openapi/v2.json.gz
	openapiV2JSON []byte
	//go:embed openapi/v2.pb.gz
	openapiV2Proto []byte
	//go:embed openapi/v3.json.gz
	openapiV3JSON []byte
	//go:embed openapi/v3.pb.gz
	openapiV3Proto []byte
)

func installOpenAPI(mux *http.ServeMux) {
	mux.Handle("GET /openapi/v2", document("v2", openapiV2JSON, openapiV2Proto))
	mux.Handle("GET /openapi/v3/api/v1", document("v3", openapiV3JSON, openapiV3Proto))
	index := fmt.Sprintf(`{"paths":{"api/v1":{"serverRelativeURL":"/openapi/v3/api/v1?hash=%s"}}}`, hash(openapiV3JSON))
	mux.HandleFunc("GET /openapi/v3", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, index)
	})
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return strings.ToUpper(hex.EncodeToString(sum[:16]))
}

// document serves one description in the encoding that the client prefers.
func document(version string, asJSON, asProto []byte) http.Handler {
	tag := `"` + hash(asJSON) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		data, accept := asJSON, r.Header.Get("Accept")
		h.Set("Content-Type", "application/json")
		if strings.Contains(accept, "proto-openapi.spec."+version) {
			data = asProto
			h.Set("Content-Type", "application/com.github.proto-openapi.spec."+version+".v1.0+protobuf")
		}
		h.Set("Vary", "Accept, Accept-Encoding")
		h.Set("ETag", tag)
		if r.URL.Query().Has("hash") {
			h.Set("Cache-Control", "public, immutable")
		}
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			_, _ = w.Write(data)
			return
		}
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			panic(fmt.Errorf("embedded OpenAPI document: %w", err))
		}
		_, _ = io.Copy(w, z)
	})
}

// lazyConverter knows the structure of the kinds, which the tracking of field
// owners (server-side apply) needs; it is built at the first write.
type lazyConverter struct {
	once      sync.Once
	converter managedfields.TypeConverter
	err       error
}

func (l *lazyConverter) get() (managedfields.TypeConverter, error) {
	l.once.Do(func() {
		z, err := gzip.NewReader(bytes.NewReader(openapiV3JSON))
		if err != nil {
			l.err = err
			return
		}
		var doc struct {
			Components struct {
				Schemas map[string]*spec.Schema `json:"schemas"`
			} `json:"components"`
		}
		if l.err = json.NewDecoder(z).Decode(&doc); l.err == nil {
			l.converter, l.err = managedfields.NewTypeConverter(doc.Components.Schemas, false)
		}
	})
	if l.err != nil {
		return nil, fmt.Errorf("embedded OpenAPI document: %w", l.err)
	}
	return l.converter, nil
}

// ObjectToTyped implements [managedfields.TypeConverter].
func (l *lazyConverter) ObjectToTyped(o runtime.Object, options ...typed.ValidationOptions) (*typed.TypedValue, error) {
	c, err := l.get()
	if err != nil {
		return nil, err
	}
	return c.ObjectToTyped(o, options...)
}

// TypedToObject implements [managedfields.TypeConverter].
func (l *lazyConverter) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	c, err := l.get()
	if err != nil {
		return nil, err
	}
	return c.TypedToObject(v)
}
