package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/sdk"
	"github.com/troupe-sh/troupe/test/lab"
)

func dial(t *testing.T, h *lab.Host) *sdk.Client {
	t.Helper()
	c, err := sdk.Dial(h.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// following runs a cache until the test ends; it returns once it is synced.
func following[T sdk.Object](t *testing.T, c *sdk.Cache[T]) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the cache ended: %v", err)
		}
	})
	wait, done := context.WithTimeout(ctx, patience)
	defer done()
	if err := c.WaitSynced(wait); err != nil {
		t.Fatal(err)
	}
}

// Writers that only repeat what surely was not written, and a cache, while the
// agent is killed again and again: each write is done once, and seen once.
func TestTheAgentIsKilledUnderTheSDK(t *testing.T) {
	h := start(t)
	client := dial(t, h)
	counters := sdk.For[*corev1.ConfigMap](client).Namespace("default")
	cache := sdk.NewCache(counters, sdk.CacheOptions[*corev1.ConfigMap]{LabelSelector: "counts"})
	seen := map[string]int{} // written by the cache's goroutine alone
	var done atomic.Int64    // increments seen
	cache.OnChange(func(c sdk.Change[*corev1.ConfigMap]) {
		name := c.Object().Name
		n, err := strconv.Atoi(c.Object().Data["n"])
		if last, ok := seen[name]; err != nil || ok && n != last+1 || !ok && n != 0 {
			t.Errorf("%s of %s: %d after %d", c.Type, name, n, last)
		}
		seen[name] = n
		if n > 0 {
			done.Add(1)
		}
	})
	following(t, cache)

	const writers = 4
	var stop atomic.Bool
	var all sync.WaitGroup
	var acked atomic.Int64
	for w := range writers {
		all.Go(func() {
			name := fmt.Sprintf("counter-%d", w)
			now, err := counters.Create(t.Context(), &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"counts": "yes"}}, Data: map[string]string{"n": "0"},
			}, metav1.CreateOptions{})
			if err != nil {
				t.Errorf("create %s: %v", name, err)
				return
			}
			for n := 1; !stop.Load(); {
				now.Data["n"] = strconv.Itoa(n)
				written, err := counters.Update(t.Context(), now, metav1.UpdateOptions{})
				switch {
				case err == nil:
					now, n = written, n+1
					acked.Add(1)
				case errors.Is(err, sdk.ErrNoAgent), errors.Is(err, sdk.ErrUnavailable), errors.Is(err, sdk.ErrTooManyRequests):
				default:
					t.Errorf("update %s to %d: %v", name, n, err)
					return
				}
			}
		})
	}
	for round := range 5 {
		before := acked.Load()
		lab.Eventually(t, patience, fmt.Sprintf("round %d: writers get on", round), func() error {
			if got := acked.Load() - before; got < 50 {
				return fmt.Errorf("%d writes", got)
			}
			return nil
		})
		h.Kill()
		h.Up()
	}
	stop.Store(true)
	all.Wait()
	lab.Eventually(t, patience, "the cache has seen all", func() error {
		if got := done.Load(); got != acked.Load() {
			return fmt.Errorf("%d of %d", got, acked.Load())
		}
		return nil
	})
	t.Logf("%d writes over 5 kills, each done and seen once", acked.Load())
}

func TestAControllerOfOnesOwn(t *testing.T) {
	h := start(t, "troupe-test")
	client := dial(t, h)
	root, err := lab.Root()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "controller")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./examples/controller")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the controller: %v\n%s", err, out)
	}
	controller := exec.CommandContext(t.Context(), program, "--socket", h.Socket)
	controller.Stdout, controller.Stderr = t.Output(), t.Output()
	if err := controller.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = controller.Process.Signal(syscall.SIGTERM)
		if err := controller.Wait(); err != nil {
			t.Errorf("the controller: %v", err)
		}
	}()

	pods := sdk.For[*corev1.Pod](client).Namespace("default")
	cards := sdk.NewCache(sdk.For[*corev1.ConfigMap](client), sdk.CacheOptions[*corev1.ConfigMap]{LabelSelector: "example.com/card-of"})
	following(t, cards)
	create := func(name string) {
		t.Helper()
		seconds := int64(1)
		_, err := pods.Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"example.com/card": "yes"}},
			Spec: corev1.PodSpec{
				TerminationGracePeriodSeconds: &seconds,
				Containers:                    []corev1.Container{{Name: "c", Image: "troupe-test", ImagePullPolicy: corev1.PullIfNotPresent}},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	right := func(name string) {
		t.Helper()
		lab.Eventually(t, patience, "the card of "+name+" is right", func() error {
			pod, err := pods.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			card, ok := cards.Get("default", name+"-card")
			if !ok {
				return errors.New("there is none")
			}
			if pod.Status.Phase != corev1.PodRunning || card.Data["ip"] != pod.Status.PodIP || card.Data["phase"] != "Running" || card.Data["node"] != h.Name {
				return fmt.Errorf("it says %v of %s", card.Data, pod.Status.Phase)
			}
			return nil
		})
	}
	create("a")
	create("b")
	right("a")
	right("b")
	h.Kill()
	h.Up()
	create("c")
	right("c")
	if err := pods.Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, patience, "the card goes with its pod", func() error {
		if card, ok := cards.Get("default", "b-card"); ok {
			return fmt.Errorf("it is there: %v", card.Data)
		}
		return nil
	})
	right("a")
}
