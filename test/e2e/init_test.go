package e2e_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestInitContainers: they prepare a volume one after another, a sidecar goes
// on beside the rest, and neither an agent that dies amid it nor what a
// container asks for is lost.
func TestInitContainers(t *testing.T) {
	h := start(t, "busybox")
	h.TroupeIn(`
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 5
  volumes: [{name: work, emptyDir: {}}]
  initContainers:
  - name: first
    image: busybox
    command: [sh, -c, "echo first >> /scratch/log; until [ -e /scratch/go ]; do sleep 0.1; done"]
    volumeMounts: [{name: work, mountPath: /scratch}]
  - name: side
    image: busybox
    restartPolicy: Always
    command: [sh, -c, "echo side >> /scratch/log; trap 'echo side ends >> /scratch/log; exit 0' TERM; sleep 3600 & wait"]
    volumeMounts: [{name: work, mountPath: /scratch}]
    startupProbe: {exec: {command: [test, -e, /scratch/log]}, periodSeconds: 1, failureThreshold: 60}
  - name: second
    image: busybox
    command: [sh, -c, "echo second >> /scratch/log; cat /scratch/log"]
    volumeMounts: [{name: work, mountPath: /scratch}]
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "echo main >> /scratch/log; exec sleep 3600"]
    volumeMounts: [{name: work, mountPath: /scratch}]
`, "apply", "-f", "-")
	waitPod(t, h, "web", "runs its first init container", func(p *corev1.Pod) bool {
		s := p.Status.InitContainerStatuses
		return p.Status.Phase == corev1.PodPending && len(s) == 3 && s[0].State.Running != nil
	})
	if out := h.Troupe("get", "pod", "web"); !strings.Contains(out, "Init:0/3") {
		t.Errorf("get says:\n%s", out)
	}
	h.Kill()
	h.Up()
	h.Troupe("exec", "web", "-c", "first", "--", "touch", "/scratch/go")
	p := waitPod(t, h, "web", "is ready", func(p *corev1.Pod) bool { return isReady(p) })
	for i, s := range p.Status.InitContainerStatuses {
		if s.RestartCount != 0 || !s.Ready || (s.State.Terminated == nil) != (i == 1) {
			t.Errorf("init container %s: %+v", s.Name, s)
		}
	}
	const order = "first\nside\nsecond\nmain\n"
	if out := h.Troupe("exec", "web", "-c", "c", "--", "cat", "/scratch/log"); out != order {
		t.Errorf("the order is\n%s", out)
	}
	if out := h.Troupe("logs", "web", "-c", "second"); out != "first\nside\nsecond\n" {
		t.Errorf("the log of second is\n%s", out)
	}
	if out := h.Troupe("get", "pod", "web"); !strings.Contains(out, "2/2") {
		t.Errorf("get says:\n%s", out)
	}
	h.Troupe("delete", "pod", "web")
}

// TestAnInitContainerThatFails: by the pod's policy it is run again, or the pod
// has failed; and a pod that may not run for long does not.
func TestAnInitContainerThatFails(t *testing.T) {
	h := start(t, "busybox")
	h.TroupeIn(`
apiVersion: v1
kind: Pod
metadata: {name: never}
spec:
  restartPolicy: Never
  initContainers: [{name: i, image: busybox, command: [sh, -c, "exit 3"]}]
  containers: [{name: c, image: busybox, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: always}
spec:
  initContainers: [{name: i, image: busybox, command: [sh, -c, "exit 3"]}]
  containers: [{name: c, image: busybox, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: job}
spec:
  restartPolicy: Never
  initContainers: [{name: side, image: busybox, restartPolicy: Always, command: [sh, -c, "trap 'exit 0' TERM; sleep 3600 & wait"]}]
  containers: [{name: c, image: busybox, command: [sh, -c, "exit 0"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  activeDeadlineSeconds: 2
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: busybox, command: [sleep, "3600"]}]
`, "apply", "-f", "-")
	p := waitPod(t, h, "never", "has failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if s := p.Status.InitContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 3 {
		t.Errorf("%+v", p.Status.InitContainerStatuses)
	}
	if out := h.Troupe("get", "pod", "never"); !strings.Contains(out, "Init:Error") {
		t.Errorf("get says:\n%s", out)
	}
	waitPod(t, h, "always", "backs off", func(p *corev1.Pod) bool {
		s := p.Status.InitContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	if out := h.Troupe("get", "pod", "always"); !strings.Contains(out, "Init:CrashLoopBackOff") {
		t.Errorf("get says:\n%s", out)
	}
	waitPod(t, h, "job", "has succeeded", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	p = waitPod(t, h, "late", "has failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if p.Status.Reason != "DeadlineExceeded" {
		t.Errorf("reason %q", p.Status.Reason)
	}
}
