package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// The handler alone, without a socket and with a journal in memory.
func BenchmarkCreatePod(b *testing.B) {
	s := start(b)
	h := s.Gateway.Handler(nil)
	p := pod("")
	p.Kind, p.APIVersion = "Pod", "v1"
	p.GenerateName = "bench-"
	body := must[[]byte](b)(json.Marshal(p))
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/namespaces/default/pods", bytes.NewReader(body))
		r.Header.Set("Content-Type", runtime.ContentTypeJSON)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusCreated {
			b.Fatal(w.Code, w.Body)
		}
	}
}

func BenchmarkGetPod(b *testing.B) {
	s := start(b)
	s.Must(pod("a"))
	h := s.Gateway.Handler(nil)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/namespaces/default/pods/a", nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body)
		}
	}
}

func BenchmarkList1000Pods(b *testing.B) {
	s := start(b)
	for i := range 1000 {
		s.Must(pod(fmt.Sprintf("p-%d", i)))
	}
	h := s.Gateway.Handler(nil)
	for _, accept := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		b.Run(accept, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				r := httptest.NewRequest(http.MethodGet, "/api/v1/namespaces/default/pods", nil)
				r.Header.Set("Accept", accept)
				h.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}

// From a write's answer until the last of 1,000 watchers has the bytes, over
// sockets in the same process.
func BenchmarkWatchers1000(b *testing.B) {
	const watchers = 1000
	s := start(b)
	s.Must(pod("a"))
	pods := s.Client(runtime.ContentTypeJSON).CoreV1().Pods("default")
	ctx, cancel := context.WithCancel(b.Context())
	c := s.HTTP()
	heard := make(chan struct{}, watchers)
	var all sync.WaitGroup
	for range watchers {
		req := must[*http.Request](b)(http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/api/v1/namespaces/default/pods?watch=1", nil))
		resp := must[*http.Response](b)(c.Do(req))
		all.Go(func() {
			defer resp.Body.Close()
			for r := bufio.NewReader(resp.Body); ; heard <- struct{}{} {
				if _, err := r.ReadSlice('\n'); err != nil {
					return // cancelled
				}
			}
		})
		<-heard
	}
	var worst time.Duration
	turn := 0
	for b.Loop() {
		turn++
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"turn":"%d"}}}`, turn)
		must[*corev1.Pod](b)(pods.Patch(ctx, "a", types.MergePatchType, patch, metav1.PatchOptions{}))
		at := time.Now()
		for range watchers {
			<-heard
		}
		worst = max(worst, time.Since(at))
	}
	b.ReportMetric(float64(worst.Microseconds())/1000, "ms-worst")
	cancel()
	all.Wait()
}
