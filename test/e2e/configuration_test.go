package e2e_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/test/lab"
)

// configured is a pod that takes a ConfigMap, a Secret and its labels as files,
// and one key of the ConfigMap into its environment.
const configured = `apiVersion: v1
kind: Pod
metadata: {name: game, labels: {level: "1"}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 4711}
  containers:
  - name: c
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "sleep 100000"]
    env:
    - {name: LIVES, valueFrom: {configMapKeyRef: {name: game, key: lives}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: game, mountPath: /game}
    - {name: game, mountPath: /lives, subPath: lives}
    - {name: all, mountPath: /all}
  volumes:
  - {name: game, configMap: {name: game}}
  - name: all
    projected:
      sources:
      - secret: {name: key, items: [{key: password, path: key/password, mode: 0400}]}
      - downwardAPI: {items: [{path: level, fieldRef: {fieldPath: "metadata.labels['level']"}}]}
`

// event fails until the pod has an event with the reason and message.
func event(t *testing.T, h *lab.Host, pod, reason, message string) {
	t.Helper()
	lab.Eventually(t, patience, "pod "+pod+" has an event "+reason, func() error {
		out := h.Troupe("get", "events", "--field-selector", "involvedObject.name="+pod+",reason="+reason, "-o", "jsonpath={.items[*].message}")
		if !strings.Contains(out, message) {
			return fmt.Errorf("it has %q, want %q", out, message)
		}
		return nil
	})
}

// says fails until a command in the pod says so.
func says(t *testing.T, h *lab.Host, pod, want string, command ...string) {
	t.Helper()
	lab.Eventually(t, patience, fmt.Sprintf("%s says %q", command, want), func() error {
		if out := h.Troupe(append([]string{"exec", pod, "--"}, command...)...); strings.TrimSpace(out) != want {
			return fmt.Errorf("it says %q", out)
		}
		return nil
	})
}

func TestConfigurationReachesAPodThatRuns(t *testing.T) {
	h := startWith(t, lab.Options{}, "busybox") // with a containerd of its own, whose files are looked at too
	h.TroupeIn(configured, "apply", "-f", "-")
	waitPod(t, h, "game", "waits for its volumes", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "ContainerCreating"
	})
	event(t, h, "game", "FailedMount", `MountVolume.SetUp failed for volume "game" : configmap "game" not found`)
	event(t, h, "game", "FailedMount", `MountVolume.SetUp failed for volume "all" : secret "key" not found`)
	const password, another = "a very secret word", "another very secret word"
	h.Troupe("create", "secret", "generic", "key", "--from-literal=password="+password)
	h.Troupe("create", "configmap", "game", "--from-literal=color=purple")
	waitPod(t, h, "game", "waits for a key", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses[0].State.Waiting
		return s != nil && s.Reason == "CreateContainerConfigError" && s.Message == "couldn't find key lives in ConfigMap default/game"
	})
	event(t, h, "game", "Failed", "Error: couldn't find key lives in ConfigMap default/game")
	h.Troupe("patch", "configmap", "game", "-p", `{"data":{"lives":"3"}}`)
	before := waitPod(t, h, "game", "runs", isReady)

	says(t, h, "game", "3 64", "sh", "-c", "echo $LIVES $MEMORY")
	says(t, h, "game", "3 purple 3", "sh", "-c", "echo $(cat /game/lives) $(cat /game/color) $(cat /lives)")
	says(t, h, "game", password+" 1", "sh", "-c", "echo $(cat /all/key/password) $(cat /all/level)")
	says(t, h, "game", "440 4711", "stat", "-L", "-c", "%a %g", "/all/key/password")
	if out := h.Troupe("exec", "game", "--", "sh", "-c", "grep ' /all ' /proc/mounts"); !strings.HasPrefix(out, "tmpfs /all tmpfs ro,") {
		t.Errorf("the Secret is mounted as %s", out)
	}
	if _, said, code := h.TryTroupe("", "exec", "game", "--", "sh", "-c", "echo x > /game/lives"); code == 0 || !strings.Contains(said, "Read-only file system") {
		t.Errorf("written to: code %d: %s", code, said)
	}
	nowhere(t, h.Data, password)

	h.Troupe("patch", "configmap", "game", "-p", `{"data":{"lives":"4","color":null,"sound":"on"}}`)
	h.Troupe("patch", "secret", "key", "-p", `{"stringData":{"password":"`+another+`"}}`)
	h.Troupe("label", "pod", "game", "level=2", "--overwrite")
	says(t, h, "game", "lives sound 4 on", "sh", "-c", "echo $(ls /game) $(cat /game/lives) $(cat /game/sound)")
	says(t, h, "game", another+" 2", "sh", "-c", "echo $(cat /all/key/password) $(cat /all/level)")
	says(t, h, "game", "3 3", "sh", "-c", "echo $LIVES $(cat /lives)") // as Kubernetes has it

	h.Kill()
	h.Up()
	h.Troupe("patch", "configmap", "game", "-p", `{"data":{"lives":"5"}}`)
	says(t, h, "game", "5", "cat", "/game/lives")
	same(t, "its configuration changed and its agent was killed", livesOf([]corev1.Pod{*before}), livesOf([]corev1.Pod{*podOf(t, h, "game")}))

	// The next container begins with what there is by now.
	h.Ctr("tasks", "kill", "-s", "SIGKILL", containerID(before))
	waitPod(t, h, "game", "runs again", func(p *corev1.Pod) bool {
		return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	says(t, h, "game", "5 5", "sh", "-c", "echo $LIVES $(cat /lives)")

	h.Troupe("patch", "configmap", "game", "-p", `{"immutable":true}`)
	if _, said, code := h.TryTroupe("", "patch", "configmap", "game", "-p", `{"data":{"lives":"6"}}`); code == 0 || !strings.Contains(said, "field is immutable when `immutable` is set") {
		t.Errorf("an immutable ConfigMap was patched: code %d: %s", code, said)
	}

	h.Reboot()
	h.Up()
	waitPod(t, h, "game", "runs after a reboot", func(p *corev1.Pod) bool {
		return isReady(p) && p.Status.ContainerStatuses[0].RestartCount > 1
	})
	says(t, h, "game", another+" 2", "sh", "-c", "echo $(cat /all/key/password) $(cat /all/level)")
	nowhere(t, h.Data, another)
	h.Troupe("delete", "pod", "game")
	waitGone(t, h, "game")
}

// nowhere fails if a file on disk holds the text.
func nowhere(t *testing.T, dir, text string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it went while we looked
		}
		var st unix.Statfs_t
		switch {
		case e.IsDir():
			if unix.Statfs(path, &st) == nil && st.Type == unix.TMPFS_MAGIC {
				return fs.SkipDir
			}
		case e.Type().IsRegular():
			files++
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(text)) {
				t.Errorf("%s holds the Secret", path)
			}
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Errorf("%d files looked at, %v", files, err)
	}
}
