package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/test/lab"
)

// readySince is when the pod last became Ready, or ceased to be.
func readySince(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return fmt.Sprintf("%s since %s", c.Status, c.LastTransitionTime)
		}
	}
	return ""
}

func TestProbes(t *testing.T) {
	h := start(t, "troupe-test", "busybox")
	h.TroupeIn(`
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: troupe-test
    ports: [{name: http, containerPort: 8080}]
    startupProbe: {tcpSocket: {port: http}, periodSeconds: 1, failureThreshold: 60}
    readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {httpGet: {path: /live, port: http}, periodSeconds: 1, failureThreshold: 2}
---
apiVersion: v1
kind: Pod
metadata: {name: file}
spec:
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "touch /tmp/ready; exec sleep 3600"]
    env: [{name: FILE, value: /tmp/ready}]
    readinessProbe: {exec: {command: [cat, $(FILE)]}, periodSeconds: 1}
`, "apply", "-f", "-")
	ready := func(p *corev1.Pod) bool { return isReady(p) }
	unready := func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning && !isReady(p) }
	before := waitPod(t, h, "web", "is ready", ready)
	waitPod(t, h, "file", "is ready", ready)
	set := func(path string, code int) {
		answers(t, h, fmt.Sprintf("http://%s:8080/set?path=%s&code=%d", before.Status.PodIP, path, code))
	}

	set("/ready", 503)
	waitPod(t, h, "web", "is not ready", unready)
	h.Troupe("exec", "file", "--", "rm", "/tmp/ready")
	waitPod(t, h, "file", "is not ready", unready)
	h.Troupe("exec", "file", "--", "touch", "/tmp/ready")
	other := waitPod(t, h, "file", "is ready again", ready)
	set("/ready", 200)
	before = waitPod(t, h, "web", "is ready again", ready)

	h.Kill()
	h.Up()
	waitPod(t, h, "web", "is ready after the agent's restart", ready)
	for name, was := range map[string]*corev1.Pod{"web": before, "file": other} {
		now := podOf(t, h, name)
		if readySince(now) != readySince(was) || now.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("%s: %s, was %s: %s", name, readySince(now), readySince(was), states(now))
		}
	}

	set("/live", 500)
	after := waitPod(t, h, "web", "is restarted", func(p *corev1.Pod) bool {
		return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if after.Status.PodIP != before.Status.PodIP {
		t.Errorf("address %s, was %s", after.Status.PodIP, before.Status.PodIP)
	}
	lab.Eventually(t, patience, "its events tell", func() error {
		out := h.Troupe("describe", "pod", "web")
		for _, line := range []string{
			"Readiness probe failed: HTTP probe failed with statuscode: 503",
			"Liveness probe failed: HTTP probe failed with statuscode: 500",
			"Container c failed liveness probe, will be restarted",
		} {
			if !strings.Contains(out, line) {
				return fmt.Errorf("no %q in\n%s", line, out)
			}
		}
		return nil
	})
}
