// Package e2e_test runs agents as users do, on real containers: what a user can
// do, and what heals. It needs root and what "make build images" builds.
package e2e_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/test/lab"
)

// patience is how long a test waits for what must happen: far longer than it
// should take. How long it takes is for test/bench.
const patience = 60 * time.Second

// start brings up an agent with images.
func start(t *testing.T, images ...string) *lab.Host {
	t.Helper()
	return startWith(t, lab.Options{Containerd: lab.StartContainerd(t)}, images...)
}

func startWith(t *testing.T, o lab.Options, images ...string) *lab.Host {
	t.Helper()
	h := lab.Start(t, o)
	if len(images) > 0 {
		h.LoadImages(images...)
	}
	return h
}

// rc is a ReplicationController's manifest.
func rc(name string, replicas int, image string, args ...string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: ReplicationController
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {app: %[1]s}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 2
      containers: [{name: c, image: %[3]q, imagePullPolicy: IfNotPresent, args: %[4]s}]
`, name, replicas, image, list(args))
}

// pod is a Pod's manifest; more are lines of its spec.
func pod(name, image string, args []string, more ...string) string {
	m := fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 2
  containers: [{name: c, image: %q, imagePullPolicy: IfNotPresent, args: %s}]
`, name, image, list(args))
	for _, l := range more {
		m += "  " + l + "\n"
	}
	return m
}

func list(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = strconv.Quote(a)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// pods are those with the label app=name.
func pods(t *testing.T, h *lab.Host, name string) []corev1.Pod {
	t.Helper()
	l, err := h.Client().CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(l.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return l.Items
}

// podOf is the pod of that name.
func podOf(t *testing.T, h *lab.Host, name string) *corev1.Pod {
	t.Helper()
	p, err := h.Client().CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// waitReady returns the pods with the label app=name once there are exactly n
// and all are Ready.
func waitReady(t *testing.T, h *lab.Host, name string, n int) []corev1.Pod {
	t.Helper()
	var all []corev1.Pod
	lab.Eventually(t, patience, fmt.Sprintf("%d pods of %s are Ready", n, name), func() error {
		all = pods(t, h, name)
		ready := 0
		for i := range all {
			if isReady(&all[i]) && all[i].DeletionTimestamp == nil {
				ready++
			}
		}
		if ready != n || len(all) != n {
			return fmt.Errorf("%d of %d are", ready, len(all))
		}
		return nil
	})
	return all
}

// waitPod returns the pod once it is as f wants it.
func waitPod(t *testing.T, h *lab.Host, name, what string, f func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var p *corev1.Pod
	lab.Eventually(t, patience, "pod "+name+" "+what, func() error {
		if p = podOf(t, h, name); !f(p) {
			return fmt.Errorf("phase %s, containers %s", p.Status.Phase, states(p))
		}
		return nil
	})
	return p
}

// waitGone returns when there is no such pod.
func waitGone(t *testing.T, h *lab.Host, name string) {
	t.Helper()
	lab.Eventually(t, patience, "pod "+name+" is gone", func() error {
		if out := h.Troupe("get", "pod", name, "--ignore-not-found", "-o", "name"); out != "" {
			return fmt.Errorf("%s is there", out)
		}
		return nil
	})
}

func inPhase(phase corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Status.Phase == phase }
}

// states is how the containers stand, for messages.
func states(p *corev1.Pod) string {
	var out []string
	for _, c := range p.Status.ContainerStatuses {
		s := fmt.Sprintf("%s ready=%v restarts=%d", c.Name, c.Ready, c.RestartCount)
		switch {
		case c.State.Running != nil:
			s += " running"
		case c.State.Waiting != nil:
			s += " waiting: " + c.State.Waiting.Reason + " " + c.State.Waiting.Message
		case c.State.Terminated != nil:
			s += fmt.Sprintf(" terminated: %s %d", c.State.Terminated.Reason, c.State.Terminated.ExitCode)
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

// containerID is what containerd calls the only container of a pod.
func containerID(p *corev1.Pod) string {
	_, id, _ := strings.Cut(p.Status.ContainerStatuses[0].ContainerID, "://")
	return id
}

// tasks are containerd's: container id → process id.
func tasks(h *lab.Host) map[string]int {
	out := map[string]int{}
	for i, line := range strings.Split(strings.TrimSpace(h.Ctr("tasks", "ls")), "\n") {
		f := strings.Fields(line)
		if i == 0 || len(f) < 3 || f[2] != "RUNNING" {
			continue
		}
		if pid, err := strconv.Atoi(f[1]); err == nil {
			out[f[0]] = pid
		}
	}
	return out
}

// get asks a URL from the host and returns the page.
func get(h *lab.Host, url string) (string, error) {
	r, err := h.HTTP().Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", url, r.Status)
	}
	return string(b), err
}

// answers returns the page once the URL answers.
func answers(t *testing.T, h *lab.Host, url string) string {
	t.Helper()
	var page string
	lab.Eventually(t, patience, url+" answers", func() (err error) {
		page, err = get(h, url)
		return err
	})
	return page
}

// life is what must not change about a pod that nothing happened to.
type life struct{ uid, ip, container, started string }

func livesOf(all []corev1.Pod) map[string]life {
	out := map[string]life{}
	for i := range all {
		p := &all[i]
		l := life{uid: string(p.UID), ip: p.Status.PodIP, container: p.Status.ContainerStatuses[0].ContainerID}
		if r := p.Status.ContainerStatuses[0].State.Running; r != nil {
			l.started = r.StartedAt.String()
		}
		out[p.Name] = l
	}
	return out
}

// same fails if a pod or container of before is another now.
func same(t *testing.T, what string, before, after map[string]life) {
	t.Helper()
	for name, b := range before {
		if a, ok := after[name]; !ok {
			t.Errorf("%s: pod %s is gone", what, name)
		} else if a != b {
			t.Errorf("%s: pod %s was %+v, is %+v", what, name, b, a)
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			t.Errorf("%s: pod %s is new", what, name)
		}
	}
}

// actor is one line of "troupe actors -o json".
type actor struct {
	Path        string
	State       string
	Restarts    int64 `json:",string"`
	LastFailure string
}

// logNumbers are the numbers of the lines that "troupe-test count" printed.
func logNumbers(t *testing.T, log string) []int {
	t.Helper()
	var out []int
	for line := range strings.Lines(log) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "line" {
			t.Fatalf("a line of another kind: %q", line)
		}
		n, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatalf("a torn line: %q", line)
		}
		out = append(out, n)
	}
	return out
}

// unbroken fails unless the numbers go up by one.
func unbroken(t *testing.T, what string, numbers []int) {
	t.Helper()
	for i := 1; i < len(numbers); i++ {
		if numbers[i] != numbers[i-1]+1 {
			t.Errorf("%s: line %d follows line %d", what, numbers[i], numbers[i-1])
		}
	}
}

// short is a context for one request.
func short(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
