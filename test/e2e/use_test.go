package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/test/lab"
)

func TestUpAndDown(t *testing.T) {
	h := startWith(t, lab.Options{}, "troupe-test") // with a containerd of its own
	if out := h.Troupe("get", "nodes"); !strings.Contains(out, h.Name) || !strings.Contains(out, "Ready") {
		t.Fatalf("nodes:\n%s", out)
	}
	if out := h.Troupe("version"); !strings.Contains(out, "node "+h.Name) {
		t.Errorf("version:\n%s", out)
	}
	h.TroupeIn(rc("web", 2, "troupe-test"), "apply", "-f", "-")
	before := livesOf(waitReady(t, h, "web", 2))

	h.Up() // is no error, and changes nothing
	same(t, "up of an agent that runs", before, livesOf(pods(t, h, "web")))

	h.Down()
	if out, said, code := h.TryTroupe("", "get", "pods"); code == 0 || !strings.Contains(said, "no agent answers at "+h.Socket) {
		t.Errorf("after down: code %d: %s%s", code, out, said)
	}
	for _, left := range h.Left() {
		if strings.HasPrefix(left, "process") || strings.HasPrefix(left, "mount") {
			t.Errorf("after down: %s", left)
		}
	}
	h.Up()
	for name, l := range livesOf(waitReady(t, h, "web", 2)) {
		if before[name].uid != l.uid {
			t.Errorf("pod %s was %s before down, is %s after up", name, before[name].uid, l.uid)
		}
	}
	h.Down("--purge")
	if left := h.Left(); len(left) > 0 {
		t.Errorf("after purge:\n%s", strings.Join(left, "\n"))
	}
}

func TestPurgeOfADeadAgent(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("containerd shared %v", shared), func(t *testing.T) {
			o := lab.Options{}
			if shared {
				o.Containerd = lab.StartContainerd(t)
			}
			h := startWith(t, o, "troupe-test")
			h.TroupeIn(pod("p", "troupe-test", nil), "apply", "-f", "-")
			waitPod(t, h, "p", "runs", inPhase(corev1.PodRunning))
			h.Kill()
			h.Down("--purge")
			if left := h.Left(); len(left) > 0 {
				t.Errorf("left:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

func TestAgentsSideBySide(t *testing.T) {
	shared := lab.StartContainerd(t)
	a := startWith(t, lab.Options{Containerd: shared, Name: "a"}, "troupe-test")
	b := startWith(t, lab.Options{Containerd: shared, Name: "b"}, "troupe-test")
	for _, h := range []*lab.Host{a, b} {
		h.TroupeIn(rc("web", 1, "troupe-test"), "apply", "-f", "-")
	}
	pa, pb := waitReady(t, a, "web", 1)[0], waitReady(t, b, "web", 1)[0]
	if pa.Spec.NodeName != "a" || pb.Spec.NodeName != "b" {
		t.Errorf("nodes %s and %s", pa.Spec.NodeName, pb.Spec.NodeName)
	}
	a.Down("--purge")
	same(t, "the other was purged", livesOf([]corev1.Pod{pb}), livesOf(pods(t, b, "web")))
	answers(t, b, "http://"+pb.Status.PodIP+":8080/")
}

func TestTheVerbsOfKubectl(t *testing.T) {
	h := start(t, "nginx", "troupe-test", "busybox")
	manifest := filepath.Join("..", "..", "examples", "nginx", "nginx.yaml")
	if out := h.Troupe("apply", "-f", manifest); !strings.Contains(out, "replicationcontroller/nginx created") {
		t.Fatalf("apply: %s", out)
	}
	all := waitReady(t, h, "nginx", 3)
	page := answers(t, h, "http://"+all[0].Status.PodIP+"/")
	if !strings.Contains(page, "Welcome to nginx!") {
		t.Errorf("page:\n%s", page)
	}
	name := all[0].Name
	if out := h.Troupe("get", "pods", "-o", "wide", "-l", "app=nginx"); strings.Count(out, "1/1") != 3 || !strings.Contains(out, all[0].Status.PodIP) || !strings.Contains(out, h.Name) {
		t.Errorf("get pods:\n%s", out)
	}
	if out := h.Troupe("describe", "pod", name); !strings.Contains(out, "Started") || !strings.Contains(out, "Scheduled") || !strings.Contains(out, "nginx") {
		t.Errorf("describe pod:\n%s", out)
	}
	if out := h.Troupe("describe", "rc", "nginx"); !strings.Contains(out, "SuccessfulCreate") || !strings.Contains(out, "3 Running") {
		t.Errorf("describe rc:\n%s", out)
	}
	if out := h.Troupe("describe", "node", h.Name); !strings.Contains(out, name) || !strings.Contains(out, "cpu") {
		t.Errorf("describe node:\n%s", out)
	}
	lab.Eventually(t, patience, "the access log has the request", func() error {
		if out := h.Troupe("logs", name); !strings.Contains(out, `"GET / HTTP/1.1" 200`) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})

	if out := h.Troupe("exec", name, "--", "cat", "/etc/hostname"); strings.TrimSpace(out) != name {
		t.Errorf("exec: %q", out)
	}
	if out := h.TroupeIn("some words", "exec", "-i", name, "--", "wc", "-c"); strings.TrimSpace(out) != "10" {
		t.Errorf("exec -i: %q", out)
	}
	if _, said, code := h.TryTroupe("", "exec", name, "--", "sh", "-c", "echo wrong >&2; exit 7"); code != 7 || !strings.Contains(said, "wrong") {
		t.Errorf("exec of a command that fails: code %d, %q", code, said)
	}

	h.Troupe("scale", "rc", "nginx", "--replicas=5")
	waitReady(t, h, "nginx", 5)
	h.Troupe("scale", "rc", "nginx", "--replicas=1")
	if left := waitReady(t, h, "nginx", 1); left[0].Status.PodIP == "" {
		t.Errorf("pod left: %+v", left[0])
	}
	h.Troupe("delete", "-f", manifest)
	waitReady(t, h, "nginx", 0)
}

func TestWatchShowsAPodsLife(t *testing.T) {
	h := start(t, "troupe-test")
	c := h.TroupeCommand(t.Context(), "get", "pods", "-w", "-o", `jsonpath={.metadata.name} {.status.phase}{"\n"}`)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	h.TroupeIn(pod("p", "troupe-test", []string{"exit", "0"}, "restartPolicy: Never"), "apply", "-f", "-")
	seen := map[string]bool{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		seen[lines.Text()] = true
		if lines.Text() == "p Succeeded" {
			break
		}
	}
	if !seen["p Pending"] || !seen["p Succeeded"] {
		t.Errorf("seen: %v", seen)
	}
}

func TestImages(t *testing.T) {
	h := start(t)
	if out := h.Troupe("image", "load", lab.Image(t, "busybox")); !strings.Contains(out, "docker.io/library/busybox:latest") {
		t.Errorf("load: %s", out)
	}
	if out := h.Troupe("image", "ls"); !strings.Contains(out, "docker.io/library/busybox:1.28") {
		t.Errorf("ls:\n%s", out)
	}
	h.Troupe("image", "rm", "busybox:1.28")
	if out := h.Troupe("image", "ls"); strings.Contains(out, "busybox:1.28") {
		t.Errorf("ls after rm:\n%s", out)
	}
	if _, said, code := h.TryTroupe("", "image", "rm", "nosuch"); code != 1 || !strings.Contains(said, `image "nosuch": not found`) {
		t.Errorf("rm of none: code %d, %s", code, said)
	}

	// A pod whose image is missing says so, and runs once it is there.
	h.TroupeIn(pod("p", "troupe-test", nil), "apply", "-f", "-")
	waitPod(t, h, "p", "waits for its image", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && strings.Contains(s[0].State.Waiting.Reason, "Image")
	})
	h.LoadImages("troupe-test")
	waitPod(t, h, "p", "runs", inPhase(corev1.PodRunning))
}

func TestActorsAreShown(t *testing.T) {
	h := start(t, "troupe-test")
	h.TroupeIn(rc("web", 1, "troupe-test"), "apply", "-f", "-")
	p := waitReady(t, h, "web", 1)[0]
	out := h.Troupe("actors")
	for _, want := range []string{"control", "registry", "scheduler", "node", "default.web", "default." + p.Name} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
	var all struct{ Items []actor }
	if err := json.Unmarshal([]byte(h.Troupe("actors", "-o", "json")), &all); err != nil || len(all.Items) < 10 {
		t.Errorf("-o json: %d actors, %v", len(all.Items), err)
	}
}

func TestPodsOfOneAndOfAnother(t *testing.T) {
	h := start(t, "troupe-test")
	h.TroupeIn(`apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}}
spec:
  volumes: [{name: shared, emptyDir: {}}]
  containers:
  - {name: server, image: troupe-test, imagePullPolicy: IfNotPresent, args: [serve, --udp, "9000"], volumeMounts: [{name: shared, mountPath: /a}]}
  - {name: other, image: troupe-test, imagePullPolicy: IfNotPresent, args: [signals], volumeMounts: [{name: shared, mountPath: /b}]}
`, "apply", "-f", "-")
	two := waitReady(t, h, "two", 1)[0]
	h.TroupeIn(rc("one", 1, "troupe-test", "serve"), "apply", "-f", "-")
	one := waitReady(t, h, "one", 1)[0]

	// Host → pod: the source is the machine's own pod address, not translated.
	page := answers(t, h, "http://"+two.Status.PodIP+":8080/")
	if !strings.Contains(page, "host: two\n") {
		t.Errorf("page:\n%s", page)
	}
	// Containers of a pod share the network, and their volume.
	if out := h.Troupe("exec", "two", "-c", "other", "--", "troupe-test", "check", "http://127.0.0.1:8080/"); !strings.Contains(out, "host: two") {
		t.Errorf("from the other container: %s", out)
	}
	h.Troupe("exec", "two", "-c", "server", "--", "sh", "-c", "echo shared > /a/file")
	if out := h.Troupe("exec", "two", "-c", "other", "--", "cat", "/b/file"); strings.TrimSpace(out) != "shared" {
		t.Errorf("file of the other container: %q", out)
	}
	if ipc := h.Troupe("exec", "two", "-c", "other", "--", "readlink", "/proc/self/ns/ipc"); ipc != h.Troupe("exec", "two", "-c", "server", "--", "readlink", "/proc/self/ns/ipc") {
		t.Errorf("IPC namespaces differ: %s", ipc)
	}
	// Pod → pod without translation; pod → itself; pod → host.
	out := h.Troupe("exec", one.Name, "--", "troupe-test", "check", "http://"+two.Status.PodIP+":8080/")
	if !strings.Contains(out, "from: "+one.Status.PodIP+":") {
		t.Errorf("pod to pod, from %s:\n%s", one.Status.PodIP, out)
	}
	h.Troupe("exec", "two", "-c", "server", "--", "troupe-test", "check", "http://"+two.Status.PodIP+":8080/")
	// A dead address ends here.
	if _, _, code := h.TryTroupe("", "exec", one.Name, "--", "troupe-test", "check", "http://10.244.255.250:80/"); code == 0 {
		t.Errorf("a dead pod address answers")
	}
	if out := h.Troupe("exec", one.Name, "--", "hostname"); strings.TrimSpace(out) != one.Name {
		t.Errorf("host name: %q", out)
	}
}

func TestHowPodsEnd(t *testing.T) {
	h := start(t, "troupe-test")
	for name, m := range map[string]string{
		"good":  pod("good", "troupe-test", []string{"exit", "0"}, "restartPolicy: Never"),
		"bad":   pod("bad", "troupe-test", []string{"exit", "--message", "because", "3"}, "restartPolicy: Never"),
		"again": pod("again", "troupe-test", []string{"exit", "5"}, "restartPolicy: OnFailure"),
		"hog":   strings.Replace(pod("hog", "troupe-test", []string{"memory", "200Mi"}, "restartPolicy: Never"), "args:", "resources: {limits: {memory: 30Mi}}, args:", 1),
	} {
		if out := h.TroupeIn(m, "apply", "-f", "-"); !strings.Contains(out, "pod/"+name+" created") {
			t.Fatal(out)
		}
	}
	waitPod(t, h, "good", "has succeeded", inPhase(corev1.PodSucceeded))
	bad := waitPod(t, h, "bad", "has failed", inPhase(corev1.PodFailed))
	if s := bad.Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 3 || s.Reason != "Error" || s.Message != "because" {
		t.Errorf("bad: %+v", bad.Status.ContainerStatuses[0].State)
	}
	hog := waitPod(t, h, "hog", "has failed", inPhase(corev1.PodFailed))
	if s := hog.Status.ContainerStatuses[0].State.Terminated; s == nil || s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("hog: %+v", hog.Status.ContainerStatuses[0].State)
	}
	again := waitPod(t, h, "again", "backs off", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff" && s[0].RestartCount > 0
	})
	if s := again.Status.ContainerStatuses[0].LastTerminationState.Terminated; s == nil || s.ExitCode != 5 {
		t.Errorf("again: %+v", again.Status.ContainerStatuses[0])
	}
}

func TestAGracefulEnd(t *testing.T) {
	h := start(t, "troupe-test")
	m := strings.Replace(pod("slow", "troupe-test", []string{"signals", "--linger", "3s"}), "Seconds: 2", "Seconds: 30", 1)
	h.TroupeIn(m, "apply", "-f", "-")
	waitPod(t, h, "slow", "runs", isReady)
	h.TroupeIn(pod("deaf", "troupe-test", []string{"signals", "--ignore-term"}), "apply", "-f", "-")
	waitPod(t, h, "deaf", "runs", isReady)
	h.Troupe("delete", "pod", "slow", "--wait=false")
	waitPod(t, h, "slow", "is being deleted and got its signal", func(p *corev1.Pod) bool {
		return p.DeletionTimestamp != nil && strings.Contains(h.Troupe("logs", "slow"), "got terminated")
	})
	waitGone(t, h, "slow")
	h.Troupe("delete", "pod", "deaf") // waits: SIGKILL after its 2 s
	waitGone(t, h, "deaf")
}

func TestPlacement(t *testing.T) {
	h := start(t, "troupe-test")
	node, err := h.Client().CoreV1().Nodes().Get(short(t), h.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	half := node.Status.Allocatable.Memory().Value()*6/10/(1<<20) + 1
	big := func(name string) string {
		return strings.Replace(pod(name, "troupe-test", nil), "args:", fmt.Sprintf("resources: {requests: {memory: %dMi}}, args:", half), 1)
	}
	h.TroupeIn(big("first"), "apply", "-f", "-")
	waitPod(t, h, "first", "runs", inPhase(corev1.PodRunning))
	h.TroupeIn(big("second"), "apply", "-f", "-")
	lab.Eventually(t, patience, "an event says why", func() error {
		out := h.Troupe("describe", "pod", "second")
		if !strings.Contains(out, "FailedScheduling") || !strings.Contains(out, "memory") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if p := podOf(t, h, "second"); p.Status.Phase != corev1.PodPending || p.Spec.NodeName != "" {
		t.Errorf("second: %s on %q", p.Status.Phase, p.Spec.NodeName)
	}
	h.Troupe("delete", "pod", "first")
	waitPod(t, h, "second", "runs as soon as there is room", inPhase(corev1.PodRunning))

	h.TroupeIn(pod("picky", "troupe-test", nil, "nodeSelector: {disktype: ssd}"), "apply", "-f", "-")
	waitPod(t, h, "picky", "waits", func(p *corev1.Pod) bool {
		return len(p.Status.Conditions) > 0 && p.Status.Conditions[0].Reason == corev1.PodReasonUnschedulable
	})
	h.Troupe("label", "node", h.Name, "disktype=ssd")
	waitPod(t, h, "picky", "runs on the labelled node", inPhase(corev1.PodRunning))
}

func TestHostPorts(t *testing.T) {
	h := start(t, "troupe-test")
	m := strings.Replace(pod("p", "troupe-test", nil), "args:", "ports: [{containerPort: 8080, hostPort: 18080}], args:", 1)
	h.TroupeIn(m, "apply", "-f", "-")
	waitPod(t, h, "p", "runs", inPhase(corev1.PodRunning))
	if page := answers(t, h, "http://127.0.0.1:18080/"); !strings.Contains(page, "host: p\n") {
		t.Errorf("page:\n%s", page)
	}
	h.TroupeIn(strings.Replace(m, "name: p}", "name: q}", 1), "apply", "-f", "-")
	waitPod(t, h, "q", "stays Pending: the port is taken", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodPending && len(p.Status.Conditions) > 0
	})
	h.Troupe("delete", "pod", "p")
	waitPod(t, h, "q", "runs", inPhase(corev1.PodRunning))
}

func TestNamespacesAndOwners(t *testing.T) {
	h := start(t, "troupe-test")
	h.Troupe("create", "namespace", "other")
	h.TroupeIn(rc("web", 2, "troupe-test"), "apply", "-n", "other", "-f", "-")
	h.TroupeIn(rc("web", 1, "troupe-test"), "apply", "-f", "-")
	waitReady(t, h, "web", 1)
	lab.Eventually(t, patience, "pods in the other namespace run", func() error {
		if out := h.Troupe("get", "pods", "-n", "other"); strings.Count(out, "1/1") != 2 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if out := h.Troupe("get", "pods", "-A"); strings.Count(out, "web-") != 3 {
		t.Errorf("get -A:\n%s", out)
	}
	h.Troupe("delete", "namespace", "other") // waits
	if out := h.Troupe("get", "pods,rc", "-A"); strings.Contains(out, "other") {
		t.Errorf("left of the namespace:\n%s", out)
	}
	lab.Eventually(t, patience, "only one container is left", func() error {
		if n := len(tasks(h)); n != 1 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})

	h.Troupe("delete", "rc", "web", "--cascade=orphan")
	orphan := waitReady(t, h, "web", 1)[0]
	if len(orphan.OwnerReferences) != 0 {
		t.Errorf("an orphan has owners: %v", orphan.OwnerReferences)
	}
	h.TroupeIn(rc("web", 2, "troupe-test"), "apply", "-f", "-")
	adopted := waitReady(t, h, "web", 2)
	if adopted[0].UID != orphan.UID && adopted[1].UID != orphan.UID {
		t.Errorf("the orphan was not adopted")
	}
}

func TestSecretsAreSealed(t *testing.T) {
	h := start(t)
	const word = "correct-horse-battery-staple"
	h.Troupe("create", "secret", "generic", "s", "--from-literal=password="+word)
	h.Troupe("create", "configmap", "c", "--from-literal=colour=green-and-blue")
	if out := h.Troupe("get", "secret", "s", "-o", "go-template={{.data.password | base64decode}}"); out != word {
		t.Errorf("secret: %q", out)
	}
	found := false
	err := filepath.WalkDir(h.Data, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), word) {
			t.Errorf("the secret stands in clear in %s", path)
		}
		found = found || strings.Contains(string(b), "green-and-blue")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !found {
		t.Error("the ConfigMap stands nowhere: the test looks in the wrong place")
	}
}

func TestWhatIsRefused(t *testing.T) {
	h := start(t)
	_, said, code := h.TryTroupe("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n", "apply", "-f", "-")
	if code == 0 || !strings.Contains(said, "no kind Deployment in apps/v1") {
		t.Errorf("a Deployment: code %d: %s", code, said)
	}
	_, said, code = h.TryTroupe(pod("Big_Name", "", nil), "apply", "-f", "-")
	if code == 0 || !strings.Contains(said, "metadata.name") || !strings.Contains(said, "spec.containers[0].image") {
		t.Errorf("a bad pod: code %d: %s", code, said)
	}
}
