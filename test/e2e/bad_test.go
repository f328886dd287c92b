package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/test/lab"
)

// unharmed starts two servers and returns what checks that nothing has
// happened to them since: they are who they were, where they were, never
// restarted, and answer.
func unharmed(t *testing.T, h *lab.Host) (check func(t *testing.T)) {
	t.Helper()
	h.TroupeIn(rc("web", 2, "troupe-test"), "apply", "-f", "-")
	before := livesOf(waitReady(t, h, "web", 2))
	return func(t *testing.T) {
		t.Helper()
		now := waitReady(t, h, "web", 2)
		same(t, t.Name(), before, livesOf(now))
		for _, p := range now {
			if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
				t.Errorf("%s: pod %s has %d restarts", t.Name(), p.Name, n)
			}
			answers(t, h, "http://"+p.Status.PodIP+":8080/")
		}
	}
}

const rightConfigMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n"

// What people write wrong is refused with its place and its reason, and is
// nothing to anybody else.
func TestWhatPeopleWriteWrong(t *testing.T) {
	h := start(t, "troupe-test")
	check := unharmed(t, h)
	for _, c := range []struct {
		name, manifest string
		args           string // apply, if empty
		fails          bool
		said           []string // regular expressions, each of which output or error must match
	}{
		{name: "no YAML", manifest: "a: [b\n", fails: true, said: []string{`yaml`, `line 1`}},
		{name: "a tab", manifest: "apiVersion: v1\n\tkind: Pod\n", fails: true, said: []string{`line 2`, `character that cannot start any token|tab`}},
		{name: "KYAML", manifest: "---\n{\n  apiVersion: \"v1\",\n  kind: \"ConfigMap\", # a comment\n  metadata: {\n    name: \"k\",\n  },\n}\n", said: []string{`configmap/k created`}},
		{name: "several documents", manifest: "---\n" + fmt.Sprintf(rightConfigMap, "d1") + "---\n# nothing but a comment\n---\n" + fmt.Sprintf(rightConfigMap, "d2") + "...\n", said: []string{`configmap/d1 created`, `configmap/d2 created`}},
		{name: "one of several is wrong", manifest: fmt.Sprintf(rightConfigMap, "d3") + "---\n" + fmt.Sprintf(rightConfigMap, "D_4") + "---\n" + fmt.Sprintf(rightConfigMap, "d5"), fails: true, said: []string{`configmap/d3 created`, `configmap/d5 created`, `"D_4" is invalid: metadata.name`}},
		{name: "no kind", manifest: "apiVersion: v1\nmetadata: {name: x}\n", fails: true, said: []string{`[kK]ind`}},
		{name: "nothing", manifest: "", fails: true, said: []string{`no objects passed to apply`}},
		{name: "unknown fields", manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: p, lables: {a: b}}\nspec: {containers: [{name: c, image: troupe-test, comand: [x]}]}\n", fails: true, said: []string{`unknown field "metadata.lables"`, `unknown field "spec.containers\[0\].comand"`}},
		{name: "wrong types", manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: {name: c}}\n", fails: true, said: []string{`cannot unmarshal object into Go struct field PodSpec.spec.containers`}},
		{name: "every mistake at once", manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: P}\nspec: {restartPolicy: x, containers: [{name: c, image: ''}, {name: c, image: b, ports: [{containerPort: 99999}]}]}\n", fails: true, said: []string{`metadata.name`, `spec.restartPolicy`, `spec.containers\[0\].image`, `spec.containers\[1\].name`, `spec.containers\[1\].ports\[0\].containerPort`}},
		{name: "too large", manifest: fmt.Sprintf(rightConfigMap, "big") + "data: {a: " + strings.Repeat("x", 1<<20+1) + "}\n", args: "create -f -", fails: true, said: []string{`Too long: may not be more than 1048576 bytes`}},
		{name: "far too large", manifest: fmt.Sprintf(rightConfigMap, "big") + "data: {a: " + strings.Repeat("x", 4<<20) + "}\n", args: "create -f -", fails: true, said: []string{`[tT]oo large|limit is 3145728`}},
		{name: "a name twice", manifest: fmt.Sprintf(rightConfigMap, "d1"), args: "create -f -", fails: true, said: []string{`configmaps "d1" already exists`}},
		{name: "an old version", manifest: strings.Replace(fmt.Sprintf(rightConfigMap, "d1"), "{", "{resourceVersion: '1', ", 1), args: "replace -f -", fails: true, said: []string{`the object has been modified; please apply your changes to the latest version`}},
		{name: "no such namespace", manifest: fmt.Sprintf(rightConfigMap, "x"), args: "apply -n nowhere -f -", fails: true, said: []string{`namespaces "nowhere" not found`}},
	} {
		args := strings.Fields(c.args)
		if len(args) == 0 {
			args = []string{"apply", "-f", "-"}
		}
		out, said, code := h.TryTroupe(c.manifest, args...)
		if c.fails == (code == 0) {
			t.Errorf("%s: exit code %d: %.500s%.500s", c.name, code, out, said)
		}
		for _, want := range c.said {
			if !regexp.MustCompile(want).MatchString(out + said) {
				t.Errorf("%s: it does not say %s: %.500s%.500s", c.name, want, out, said)
			}
		}
	}
	check(t)
}

// reasonOf is why a pod's only container waits.
func reasonOf(p *corev1.Pod) string {
	if s := p.Status.ContainerStatuses; len(s) == 1 && s[0].State.Waiting != nil {
		return s[0].State.Waiting.Reason
	}
	return ""
}

func TestPodsThatCannotRun(t *testing.T) {
	h := start(t, "troupe-test")
	check := unharmed(t, h)
	noMount := []string{"volumes: [{name: v, hostPath: {path: /nowhere/at/all, type: Directory}}]"}
	mounted := strings.Replace(pod("no-mount", "troupe-test", nil, noMount...), "args: []", "args: [], volumeMounts: [{name: v, mountPath: /v}]", 1)
	for name, q := range map[string]struct {
		manifest string
		reason   string // of its container, a regular expression
		events   string // among its events
	}{
		"no-image":   {strings.Replace(pod("no-image", "no-such-image:1", nil), "IfNotPresent", "Never", 1), `^ErrImageNeverPull$`, `no-such-image:1`},
		"bad-name":   {pod("bad-name", "Not:An:Image", nil), `^InvalidImageName$`, `Not:An:Image`},
		"no-command": {strings.Replace(pod("no-command", "troupe-test", nil), "args: []", "command: [/no/such/command]", 1), `^(RunContainerError|CrashLoopBackOff)$`, `/no/such/command`},
		"no-mount":   {mounted, `^ContainerCreating$`, `(?s)FailedMount.*hostPath type check failed: /nowhere/at/all is not a directory`},
	} {
		h.TroupeIn(q.manifest, "apply", "-f", "-")
		waitPod(t, h, name, "says why it does not run", func(p *corev1.Pod) bool { return regexp.MustCompile(q.reason).MatchString(reasonOf(p)) })
		lab.Eventually(t, patience, name+" has its event", func() error {
			if out := h.Troupe("describe", "pod", name); !regexp.MustCompile(q.events).MatchString(out) {
				return errors.New(out)
			}
			return nil
		})
	}
	check(t)
	// What was missing appears, and the pod runs without anybody's help.
	h.TroupeIn(mounted, "delete", "-f", "-")
	dir := filepath.Join(h.Data, "appears")
	late := strings.ReplaceAll(mounted, "/nowhere/at/all", dir)
	h.TroupeIn(late, "apply", "-f", "-")
	waitPod(t, h, "no-mount", "waits", func(p *corev1.Pod) bool { return reasonOf(p) == "ContainerCreating" })
	h.Exec("mkdir", dir)
	waitPod(t, h, "no-mount", "runs", isReady)

	stubborn := pod("stubborn", "troupe-test", []string{"signals", "--ignore-term"})
	h.TroupeIn(stubborn, "apply", "-f", "-")
	waitPod(t, h, "stubborn", "runs", isReady)
	h.Troupe("delete", "pod", "stubborn", "no-image", "bad-name", "no-command", "no-mount") // waits for its SIGKILL
	check(t)
}

func TestArchivesThatAreNoImages(t *testing.T) {
	h := start(t, "troupe-test")
	check := unharmed(t, h)
	before := h.Troupe("image", "ls")
	right, err := os.ReadFile(lab.Image(t, "debian")) // of which no layer is there yet
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(noise)
	broken := append([]byte(nil), right...)
	copy(broken[len(broken)/2:], noise[:4096])
	broken = bytes.ReplaceAll(broken, []byte("debian:latest"), []byte("troupe-test:1")) // a name that is in use
	for name, content := range map[string][]byte{
		"nothing": nil, "noise": noise, "text": []byte("FROM scratch\n"), "cut short": right[:len(right)/3], "bytes changed": broken,
		"zeros": make([]byte, 1<<20), "gzip of nothing": []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
	} {
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if out, said, code := h.TryTroupe("", "image", "load", file); code == 0 || strings.TrimSpace(said) == "" {
			t.Errorf("%s was loaded: %s%s", name, out, said)
		}
	}
	if after := h.Troupe("image", "ls"); after != before {
		t.Errorf("images before:\n%safter:\n%s", before, after)
	}
	check(t)
	h.LoadImages("debian") // what was refused is in nobody's way
}

func TestClientsThatMisbehave(t *testing.T) {
	h := start(t, "troupe-test")
	check := unharmed(t, h)
	agent := h.PID()
	open := func() net.Conn {
		c, err := h.Dial(t.Context(), "unix", h.Socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(noise)
	for _, garbage := range []string{string(noise), "GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + string(noise), "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 10_000)} {
		for range 10 {
			_, _ = io.WriteString(deadlined(open()), garbage) // and stays open
		}
	}
	for range 300 { // watch all there is, and read nothing of it
		fmt.Fprintf(open(), "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n")
		fmt.Fprintf(open(), "GET /api/v1/namespaces/default/pods HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	check(t)
	h.TroupeIn(rc("more", 2, "troupe-test"), "apply", "-f", "-")
	waitReady(t, h, "more", 2)
	if h.PID() != agent {
		t.Error("the agent is another")
	}
}

// deadlined is a connection on which nothing takes long.
func deadlined(c net.Conn) net.Conn {
	_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	return c
}

func TestAForkBomb(t *testing.T) {
	h := start(t, "troupe-test", "busybox")
	check := unharmed(t, h)
	bomb := strings.Replace(pod("bomb", "busybox", nil), "args: []", `command: [sh, -c, "b() { b | b & }; b; while :; do sleep 1; done"], resources: {limits: {cpu: 200m, memory: 1Gi}}`, 1)
	h.TroupeIn(bomb, "apply", "-f", "-")
	lab.Eventually(t, patience, "the pod is at its limit of processes", func() error {
		if refusedForks(h) == 0 {
			return errors.New("no fork was refused yet")
		}
		return nil
	})
	check(t)
	h.TroupeIn(rc("more", 1, "troupe-test"), "apply", "-f", "-")
	waitReady(t, h, "more", 1)
	h.Troupe("delete", "pod", "bomb") // waits
	check(t)
}

// refusedForks is how often a pod of the host was refused a process.
func refusedForks(h *lab.Host) (n int) {
	for _, root := range []string{filepath.Join("/sys/fs/cgroup/pids", h.Cgroup), filepath.Join("/sys/fs/cgroup", h.Cgroup)} {
		_ = filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.Name() != "pids.events" {
				return nil // cgroups come and go
			}
			var refused int
			if b, err := os.ReadFile(path); err == nil {
				_, _ = fmt.Sscanf(string(b), "max %d", &refused)
			}
			n += refused
			return nil
		})
	}
	return n
}

func TestNamespaceUnderLoad(t *testing.T) {
	h := start(t, "troupe-test")
	check := unharmed(t, h)
	h.Troupe("create", "namespace", "busy")
	h.TroupeIn(rc("web", 3, "troupe-test"), "apply", "-n", "busy", "-f", "-")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	said := map[string]int{}
	for w := range 20 {
		wg.Go(func() {
			client := h.Client().CoreV1().ConfigMaps("busy")
			for i := 0; ctx.Err() == nil; i++ {
				_, err := client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m-%d-%d", w, i)}}, metav1.CreateOptions{})
				what := "written"
				switch {
				case err == nil:
				case ctx.Err() != nil:
					return
				case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
					what = "terminating"
				case apierrors.IsNotFound(err):
					what = "gone"
				default:
					what = err.Error()
				}
				mu.Lock()
				said[what]++
				mu.Unlock()
			}
		})
	}
	heard := func(what string) func() error {
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			if said[what] == 0 {
				return fmt.Errorf("%v", said)
			}
			return nil
		}
	}
	lab.Eventually(t, patience, "objects are written", heard("written"))
	h.Troupe("delete", "namespace", "busy") // waits until it is gone
	lab.Eventually(t, patience, "writers hear that it is gone", heard("gone"))
	stop()
	wg.Wait()
	for what := range said {
		if what != "written" && what != "terminating" && what != "gone" {
			t.Errorf("a writer heard: %s", what)
		}
	}
	t.Logf("the writers heard %v", said)
	if out := h.Troupe("get", "all,configmaps,events", "-A", "-o", "name", "--field-selector", "metadata.namespace=busy"); strings.TrimSpace(out) != "" {
		t.Errorf("left of it: %s", out)
	}
	check(t)
}
