package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
)

const soon = 10 * time.Second

// heard reads n events as "TYPE name@version".
func heard(t *testing.T, w watch.Interface, n int) []watch.Event {
	t.Helper()
	var events []watch.Event
	deadline := time.After(soon)
	for len(events) < n {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				t.Fatalf("the watch ended after %v", names(events))
			}
			events = append(events, e)
		case <-deadline:
			t.Fatalf("heard only %v of %d", names(events), n)
		}
	}
	return events
}

func names(events []watch.Event) []string {
	var out []string
	for _, e := range events {
		switch o := e.Object.(type) {
		case metav1.Object:
			out = append(out, string(e.Type)+" "+o.GetName())
		case *metav1.Status:
			out = append(out, string(e.Type)+" "+string(o.Reason))
		}
	}
	return out
}

func expect(t *testing.T, w watch.Interface, want ...string) []watch.Event {
	t.Helper()
	events := heard(t, w, len(want))
	if got := names(events); !slices.Equal(got, want) {
		t.Errorf("heard %v, want %v", got, want)
	}
	return events
}

func watching(t *testing.T, c kubernetes.Interface, o metav1.ListOptions) watch.Interface {
	t.Helper()
	w, err := c.CoreV1().ConfigMaps("default").Watch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

func label(t *testing.T, c kubernetes.Interface, name, value string) *corev1.ConfigMap {
	t.Helper()
	return must[*corev1.ConfigMap](t)(c.CoreV1().ConfigMaps("default").Patch(t.Context(), name, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{"tier":%q}}}`, value), metav1.PatchOptions{}))
}

func TestAWatchShowsEveryChangeOnceAndInOrder(t *testing.T) {
	s := start(t)
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(contentType, func(t *testing.T) {
			c := s.Client(contentType)
			maps := c.CoreV1().ConfigMaps("default")
			list := must[*corev1.ConfigMapList](t)(maps.List(t.Context(), metav1.ListOptions{}))
			w := watching(t, c, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
			all := must[watch.Interface](t)(c.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion}))
			defer all.Stop()
			must[*corev1.ConfigMap](t)(maps.Create(t.Context(), configMap("a"), none))
			must[*corev1.Pod](t)(c.CoreV1().Pods("default").Create(t.Context(), pod(contentType[len(contentType)-4:]), none))
			changed := label(t, c, "a", "x")
			must[*corev1.ConfigMap](t)(maps.Create(t.Context(), configMap("b"), none))
			if err := maps.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			want := []string{"ADDED a", "MODIFIED a", "ADDED b", "DELETED a"}
			events := expect(t, w, want...)
			expect(t, all, want...)
			var last uint64
			for _, e := range events {
				var version uint64
				if _, err := fmt.Sscan(e.Object.(metav1.Object).GetResourceVersion(), &version); err != nil || version <= last {
					t.Errorf("version %d after %d: %v", version, last, err)
				}
				last = version
			}
			if gone := events[3].Object.(*corev1.ConfigMap); gone.Labels["tier"] != "x" || gone.ResourceVersion == changed.ResourceVersion {
				t.Errorf("deleted as %+v", gone.ObjectMeta)
			}
			// From the middle on, again.
			expect(t, watching(t, c, metav1.ListOptions{ResourceVersion: events[1].Object.(metav1.Object).GetResourceVersion()}), "ADDED b", "DELETED a")
			// One object alone.
			expect(t, watching(t, c, metav1.ListOptions{ResourceVersion: list.ResourceVersion, FieldSelector: "metadata.name=b"}), "ADDED b")
			if err := maps.Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestWhatLeavesASelectorIsDeletedForItsWatcher(t *testing.T) {
	s := start(t)
	c := s.Client("")
	made := must[*corev1.ConfigMap](t)(c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("a"), none))
	w := watching(t, c, metav1.ListOptions{ResourceVersion: made.ResourceVersion, LabelSelector: "tier=web"})
	label(t, c, "a", "db")
	in := label(t, c, "a", "web")
	must[*corev1.ConfigMap](t)(c.CoreV1().ConfigMaps("default").Patch(t.Context(), "a", types.MergePatchType, []byte(`{"data":{"x":"1"}}`), metav1.PatchOptions{}))
	out := label(t, c, "a", "db")
	events := expect(t, w, "ADDED a", "MODIFIED a", "DELETED a")
	if got := events[0].Object.(metav1.Object).GetResourceVersion(); got != in.ResourceVersion {
		t.Errorf("came in at %s, want %s", got, in.ResourceVersion)
	}
	left := events[2].Object.(*corev1.ConfigMap)
	if left.ResourceVersion != out.ResourceVersion || left.Labels["tier"] != "web" {
		t.Errorf("left as %s %v, want %s as it was in the selector", left.ResourceVersion, left.Labels, out.ResourceVersion)
	}

	pods := c.CoreV1().Pods("default")
	must[*corev1.Pod](t)(pods.Create(t.Context(), pod("p"), none))
	onNode := must[watch.Interface](t)(pods.Watch(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=n1"}))
	defer onNode.Stop()
	bind(t, s, c, "p", "n1")
	expect(t, onNode, "ADDED p")
}

func TestWhereAWatchBegins(t *testing.T) {
	s := start(t)
	c := s.Client("")
	maps := c.CoreV1().ConfigMaps("default")
	must[*corev1.ConfigMap](t)(maps.Create(t.Context(), configMap("a"), none))
	must[*corev1.ConfigMap](t)(maps.Create(t.Context(), configMap("b"), none))
	last := label(t, c, "a", "x")
	for name, o := range map[string]metav1.ListOptions{
		"unset shows what there is":                                {},
		"0 shows what there is":                                    {ResourceVersion: "0"},
		"initial events show what there is, and that they are all": {SendInitialEvents: ptr.To(true), AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan},
		"initial events not older than":                            {SendInitialEvents: ptr.To(true), AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, ResourceVersion: last.ResourceVersion},
	} {
		t.Run(name, func(t *testing.T) {
			w := watching(t, c, o)
			expect(t, w, "ADDED a", "ADDED b")
			if o.SendInitialEvents != nil {
				mark := expect(t, w, "BOOKMARK ")[0].Object.(*corev1.ConfigMap)
				if mark.Annotations[metav1.InitialEventsAnnotationKey] != "true" || mark.ResourceVersion < last.ResourceVersion {
					t.Errorf("bookmark %+v", mark.ObjectMeta)
				}
			}
			label(t, c, "b", fmt.Sprint("turn-", len(name)))
			expect(t, w, "MODIFIED b")
		})
	}
	t.Run("without initial events, from now on", func(t *testing.T) {
		w := watching(t, c, metav1.ListOptions{SendInitialEvents: ptr.To(false), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true})
		label(t, c, "b", "now")
		expect(t, w, "MODIFIED b")
	})
	t.Run("just before its time is over it says how far it is", func(t *testing.T) {
		w := watching(t, c, metav1.ListOptions{ResourceVersion: last.ResourceVersion, FieldSelector: "metadata.name=none", AllowWatchBookmarks: true, TimeoutSeconds: ptr.To(int64(3))})
		mark := expect(t, w, "BOOKMARK ")[0].Object.(*corev1.ConfigMap)
		if mark.ResourceVersion <= last.ResourceVersion {
			t.Errorf("bookmark at %s", mark.ResourceVersion)
		}
		if _, more := <-w.ResultChan(); more {
			t.Error("the watch outlives its time")
		}
	})
}

// churn makes more changes than are remembered.
func churn(t *testing.T, s *gatewaytest.Server) {
	t.Helper()
	const remembered = 10000
	s.Churn(configMap("churn"), remembered+100)
}

func TestAWatchFromTooFarBackIsGone(t *testing.T) {
	s := start(t)
	c := s.Client("")
	made := must[*corev1.ConfigMap](t)(c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("a"), none))
	label(t, c, "a", "x") // forgotten as well
	churn(t, s)
	w := watching(t, c, metav1.ListOptions{ResourceVersion: made.ResourceVersion})
	events := expect(t, w, "ERROR Expired")
	if err := apierrors.FromObject(events[0].Object); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		t.Errorf("got %v", err)
	}
}

func TestASlowWatcherIsCutOffAndHoldsNobodyUp(t *testing.T) {
	s := start(t)
	made := must[*corev1.ConfigMap](t)(s.Client("").CoreV1().ConfigMaps("default").Create(t.Context(), configMap("a"), none))
	big := configMap("big")
	big.Data["a"] = strings.Repeat("x", 4096) // more than the socket's buffers hold
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req := must[*http.Request](t)(http.NewRequestWithContext(ctx, http.MethodGet,
		"http://localhost/api/v1/namespaces/default/configmaps?watch=1&resourceVersion="+made.ResourceVersion, nil))
	resp := must[*http.Response](t)(s.HTTP().Do(req))
	defer resp.Body.Close()
	s.Churn(big, 10000+2000) // while nobody reads
	body := must[[]byte](t)(io.ReadAll(resp.Body))
	if !strings.HasSuffix(strings.TrimSpace(string(body)), `"code":410}}`) {
		t.Errorf("the watch ended with %.300s", body[max(0, len(body)-300):])
	}
}
