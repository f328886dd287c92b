package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/test/lab"
)

// memoryOf reads a line of the agent's status, such as VmHWM, in bytes.
func memoryOf(t *testing.T, h *lab.Host, line string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.PID()))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(line + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no %s in %s", line, status)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

func TestTenThousandObjectsAtOnce(t *testing.T) {
	h := start(t, "troupe-test")
	check := unharmed(t, h)
	const objects, writers = 10_000, 500
	agent, before, at := h.PID(), memoryOf(t, h, "VmRSS"), time.Now()
	client := h.Client().CoreV1().ConfigMaps("default")
	names := make(chan string)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for name := range names {
				m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": strings.Repeat("x", 500)}}
				// A client that is told to come again does.
				for {
					_, err := client.Create(t.Context(), m, metav1.CreateOptions{})
					if err == nil {
						break
					}
					if !apierrors.IsTooManyRequests(err) {
						t.Errorf("%s: %v", name, err)
						break
					}
				}
			}
		})
	}
	for i := range objects {
		names <- fmt.Sprintf("m-%05d", i)
	}
	close(names)
	wg.Wait()
	took := time.Since(at)
	l, err := client.List(t.Context(), metav1.ListOptions{LabelSelector: "", ResourceVersion: "0"})
	if err != nil || len(l.Items) != objects {
		t.Errorf("%d objects are there: %v", len(l.Items), err)
	}
	peak := memoryOf(t, h, "VmHWM")
	t.Logf("%d objects in %s; the agent had %d MB, at most %d MB", objects, took, before>>20, peak>>20)
	const bound = 512 << 20
	if peak > bound {
		t.Errorf("the agent took %d MB", peak>>20)
	}
	// A wish for as many pods is one object: what the machine has no room for waits.
	h.TroupeIn(rc("many", 300, "troupe-test"), "apply", "-f", "-")
	check(t)
	h.Troupe("delete", "rc", "many", "--cascade=orphan")
	h.Troupe("delete", "pods", "-l", "app=many", "--force", "--grace-period=0", "--wait=false")
	if err := client.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil && !apierrors.IsTimeout(err) {
		t.Errorf("delete them: %v", err)
	}
	check(t)
	if h.PID() != agent {
		t.Error("the agent is another")
	}
}

func TestAFloodOfLogs(t *testing.T) {
	h := start(t, "troupe-test")
	check := unharmed(t, h)
	h.TroupeIn(pod("slow", "troupe-test", []string{"count", "--rate", "50"}), "apply", "-f", "-")
	waitPod(t, h, "slow", "runs", isReady)
	const lines, width = 1_050_000, 1023 // and a line break: over 1 GB
	flood := pod("flood", "troupe-test", []string{"count", "--rate", "0", "--to", strconv.Itoa(lines), "--width", strconv.Itoa(width)}, "restartPolicy: Never")
	h.TroupeIn(flood, "apply", "-f", "-")
	const bound = 6 * 10 << 20 // five files of ten megabytes, and one that is being changed
	var most int64
	lab.Eventually(t, 5*time.Minute, "the flood is over", func() error {
		size := sizeOf(t, h, "flood")
		if most = max(most, size); size > bound {
			t.Fatalf("its log takes %d bytes", size)
		}
		if p := podOf(t, h, "flood"); p.Status.Phase != corev1.PodSucceeded {
			return fmt.Errorf("phase %s, %s", p.Status.Phase, states(p))
		}
		return nil
	})
	t.Logf("its log took %d MB at most", most>>20)
	if got := strings.Fields(h.Troupe("logs", "flood", "--tail=1")); len(got) < 2 || got[1] != strconv.Itoa(lines) {
		t.Errorf("its last line is %.100q", got)
	}
	numbers := logNumbers(t, h.Troupe("logs", "slow"))
	unbroken(t, "the other's log", numbers)
	if len(numbers) == 0 || numbers[0] != 1 {
		t.Errorf("the other's log has %d lines", len(numbers))
	}
	check(t)
}

// sizeOf is what the log files of a pod take of the disk.
func sizeOf(t *testing.T, h *lab.Host, name string) (size int64) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(h.Data, "logs", "pods", "default_"+name+"_*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		_ = filepath.Walk(dir, func(_ string, i os.FileInfo, err error) error {
			if err == nil && i.Mode().IsRegular() { // one that is rotated away meanwhile counts for nothing
				size += i.Size()
			}
			return nil
		})
	}
	return size
}
