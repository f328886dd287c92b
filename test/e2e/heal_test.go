package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/troupe-sh/troupe/test/lab"
)

func TestAContainerIsKilled(t *testing.T) {
	h := start(t, "troupe-test")
	h.TroupeIn(rc("web", 1, "troupe-test"), "apply", "-f", "-")
	before := waitReady(t, h, "web", 1)[0]
	for n := int32(1); n <= 3; n++ {
		now := podOf(t, h, before.Name)
		pid := tasks(h)[containerID(now)]
		if pid == 0 {
			t.Fatalf("container %s does not run: %v", containerID(now), tasks(h))
		}
		killed := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if n == 2 {
			waitPod(t, h, before.Name, "backs off from the second time on", func(p *corev1.Pod) bool {
				w := p.Status.ContainerStatuses[0].State.Waiting
				return w != nil && w.Reason == "CrashLoopBackOff"
			})
		}
		after := waitPod(t, h, before.Name, fmt.Sprintf("runs again after %d", n), func(p *corev1.Pod) bool {
			return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == n
		})
		t.Logf("restart %d: running again after %s", n, time.Since(killed).Round(time.Millisecond))
		if after.UID != before.UID || after.Status.PodIP != before.Status.PodIP {
			t.Errorf("restart %d: uid %s, address %s; was %s, %s", n, after.UID, after.Status.PodIP, before.UID, before.Status.PodIP)
		}
		if last := after.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 137 {
			t.Errorf("restart %d: last state %+v", n, after.Status.ContainerStatuses[0].LastTerminationState)
		}
		if n == 2 {
			break // the third would wait for 20 s
		}
	}
	answers(t, h, "http://"+before.Status.PodIP+":8080/")
}

func TestTheAgentIsKilledUnderThirtyPods(t *testing.T) {
	h := start(t, "troupe-test")
	h.TroupeIn(rc("count", 30, "troupe-test", "count", "--rate", "50"), "apply", "-f", "-")
	before := waitReady(t, h, "count", 30)
	slow := strings.Replace(pod("slow", "troupe-test", []string{"signals", "--linger", "4s"}), "Seconds: 2", "Seconds: 30", 1)
	h.TroupeIn(slow, "apply", "-f", "-")
	waitPod(t, h, "slow", "runs", isReady)
	h.TroupeIn(rc("late", 0, "troupe-test"), "apply", "-f", "-")

	// The last wishes before it dies: acknowledged, perhaps not begun.
	h.Troupe("delete", "pod", "slow", "--wait=false")
	h.Troupe("scale", "rc", "late", "--replicas=2")
	h.Kill()
	if n := len(tasks(h)); n < 31 {
		t.Errorf("only %d containers run without the agent", n)
	}
	h.Up()

	same(t, "the agent was killed", livesOf(before), livesOf(waitReady(t, h, "count", 30)))
	for _, p := range pods(t, h, "count") {
		if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
			t.Errorf("pod %s: %d restarts", p.Name, n)
		}
	}
	waitGone(t, h, "slow")
	waitReady(t, h, "late", 2)
	for _, p := range before {
		numbers := logNumbers(t, h.Troupe("logs", p.Name))
		unbroken(t, "log of "+p.Name, numbers)
		if len(numbers) == 0 || numbers[0] != 1 {
			t.Errorf("log of %s begins with %v", p.Name, numbers[:min(1, len(numbers))])
		}
	}
}

func TestTheKeeperStartsTheAgentAgain(t *testing.T) {
	h := startWith(t, lab.Options{Containerd: lab.StartContainerd(t), Restart: true}, "troupe-test")
	h.TroupeIn(rc("web", 2, "troupe-test"), "apply", "-f", "-")
	before := waitReady(t, h, "web", 2)

	killed := h.PID()
	h.Kill()
	h.Up() // finds it, however far it has come
	if now := h.PID(); now == killed {
		t.Errorf("process %d was killed and is there", now)
	}
	same(t, "the agent was killed", livesOf(before), livesOf(waitReady(t, h, "web", 2)))

	// What is told to end stays so, however soon it comes.
	h.Kill()
	h.Down("--purge")
	if left := h.Left(); len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

func TestPodsAreReplaced(t *testing.T) {
	h := start(t, "troupe-test")
	h.TroupeIn(rc("web", 3, "troupe-test"), "apply", "-f", "-")
	before := waitReady(t, h, "web", 3)
	h.Troupe("delete", "pod", before[0].Name)
	after := waitReady(t, h, "web", 3)
	if slices.ContainsFunc(after, func(p corev1.Pod) bool { return p.Name == before[0].Name }) {
		t.Errorf("pod %s was deleted and is there", before[0].Name)
	}
	// One too many, made by hand.
	extra := strings.Replace(pod("extra", "troupe-test", nil), "name: extra}", "name: extra, labels: {app: web}}", 1)
	h.TroupeIn(extra, "create", "-f", "-")
	lab.Eventually(t, patience, "three are left", func() error {
		if n := len(pods(t, h, "web")); n != 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	same(t, "one too many", livesOf(after), livesOf(waitReady(t, h, "web", 3)))
}

func TestBehindTheAgentsBack(t *testing.T) {
	h := start(t, "troupe-test")
	h.TroupeIn(rc("web", 2, "troupe-test"), "apply", "-f", "-")
	before := waitReady(t, h, "web", 2)

	// A wanted container is removed.
	id := containerID(&before[0])
	h.Ctr("tasks", "rm", "-f", id)
	h.Ctr("containers", "rm", id)
	after := waitPod(t, h, before[0].Name, "has its container again", func(p *corev1.Pod) bool {
		return isReady(p) && p.Status.ContainerStatuses[0].ContainerID != before[0].Status.ContainerStatuses[0].ContainerID
	})
	if after.UID != before[0].UID {
		t.Errorf("pod %s was replaced", after.Name)
	}

	// What nobody wants is removed.
	h.Ctr("run", "-d", "--snapshotter", "overlayfs", "docker.io/library/troupe-test:latest", "stranger", "troupe-test", "signals")
	pin := filepath.Join(h.Run, "netns", "00000000-0000-0000-0000-000000000000")
	if err := os.MkdirAll(pin, 0o755); err != nil {
		t.Fatal(err)
	}
	h.Exec("sh", "-c", "touch "+pin+"/net && mount --bind /proc/self/ns/net "+pin+"/net")
	lab.Eventually(t, patience, "the stranger is removed", func() error { // by the next sweep
		if out := h.Ctr("containers", "ls", "-q"); strings.Contains(out, "stranger") {
			return errors.New(out)
		}
		if _, err := os.Stat(pin); err == nil {
			return fmt.Errorf("%s is there", pin)
		}
		return nil
	})
	all := waitReady(t, h, "web", 2)
	if n := len(tasks(h)); n != 2 {
		t.Errorf("%d containers run for %d pods", n, len(all))
	}
}

func TestContainerdIsKilled(t *testing.T) {
	c := lab.StartContainerd(t)
	h := startWith(t, lab.Options{Containerd: c}, "troupe-test")
	h.TroupeIn(rc("count", 3, "troupe-test", "count", "--rate", "20"), "apply", "-f", "-")
	before := waitReady(t, h, "count", 3)
	c.Kill()
	c.Start()
	h.TroupeIn(rc("web", 1, "troupe-test"), "apply", "-f", "-")
	waitReady(t, h, "web", 1)
	same(t, "containerd was killed", livesOf(before), livesOf(pods(t, h, "count")))
	for _, p := range before {
		unbroken(t, "log of "+p.Name, logNumbers(t, h.Troupe("logs", p.Name)))
	}

	// What ends while containerd is away is noticed too.
	pid := tasks(h)[containerID(&before[0])]
	c.Kill()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.Start()
	waitPod(t, h, before[0].Name, "runs again", func(p *corev1.Pod) bool {
		return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
}

func TestTheAgentsOwnContainerdIsKilled(t *testing.T) {
	h := startWith(t, lab.Options{}, "troupe-test")
	h.TroupeIn(rc("web", 2, "troupe-test"), "apply", "-f", "-")
	before := livesOf(waitReady(t, h, "web", 2))
	h.KillContainerd()
	h.TroupeIn(rc("more", 1, "troupe-test"), "apply", "-f", "-")
	waitReady(t, h, "more", 1)
	same(t, "its containerd was killed", before, livesOf(pods(t, h, "web")))
}

// actors are all that run, by path.
func actors(t *testing.T, h *lab.Host) map[string]actor {
	t.Helper()
	var all struct{ Items []actor }
	if err := json.Unmarshal([]byte(h.Troupe("actors", "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]actor{}
	for _, a := range all.Items {
		out[a.Path] = a
	}
	return out
}

func TestEveryActorFails(t *testing.T) {
	h := start(t, "troupe-test")
	h.TroupeIn(rc("web", 2, "troupe-test"), "apply", "-f", "-")
	before := waitReady(t, h, "web", 2)
	replicas := 2
	// The registry takes all with it that stands behind it; it has a test of its own.
	var paths []string
	groups := map[string]bool{}
	for path := range actors(t, h) {
		for p := filepath.Dir(path); p != "."; p = filepath.Dir(p) {
			groups[p] = true
		}
	}
	for path, a := range actors(t, h) {
		if a.State == "Running" && !groups[path] && path != "control/registry" {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	if len(paths) < 8 {
		t.Fatalf("only these actors: %v", paths)
	}
	for _, path := range paths {
		was := actors(t, h)
		h.Troupe("actors", "restart", path)
		lab.Eventually(t, patience, path+" runs again", func() error {
			now, ok := actors(t, h)[path]
			if !ok || now.State != "Running" || now.Restarts != was[path].Restarts+1 {
				return fmt.Errorf("%+v", now)
			}
			return nil
		})
		for p, a := range actors(t, h) {
			if b, ok := was[p]; ok && p != path && a.Restarts != b.Restarts {
				t.Errorf("%s failed, and %s was restarted", path, p)
			}
		}
		// The work is done, once.
		replicas++
		h.Troupe("scale", "rc", "web", fmt.Sprintf("--replicas=%d", replicas))
		waitReady(t, h, "web", replicas)
	}
	lives := livesOf(pods(t, h, "web"))
	for name, l := range livesOf(before) {
		if lives[name] != l {
			t.Errorf("pod %s was %+v, is %+v", name, l, lives[name])
		}
	}
}

func TestABudgetIsSpent(t *testing.T) {
	h := start(t, "troupe-test")
	h.TroupeIn(rc("web", 1, "troupe-test"), "apply", "-f", "-")
	before := livesOf(waitReady(t, h, "web", 1))
	const child, parent = "control/controllers/scheduler", "control/controllers"
	for range 20 {
		if actors(t, h)[parent].Restarts > 0 {
			break
		}
		n := actors(t, h)[child].Restarts
		h.Troupe("actors", "restart", child)
		lab.Eventually(t, patience, "the scheduler or its group was restarted", func() error {
			now := actors(t, h)
			if now[child].Restarts == n && now[parent].Restarts == 0 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	if a := actors(t, h)[parent]; a.Restarts != 1 || a.LastFailure == "" {
		t.Errorf("%s: %+v", parent, a)
	}
	h.Troupe("scale", "rc", "web", "--replicas=2")
	for name, l := range livesOf(waitReady(t, h, "web", 2)) {
		if b, ok := before[name]; ok && b != l {
			t.Errorf("pod %s was %+v, is %+v", name, b, l)
		}
	}
}

// load writes ConfigMaps from several callers until stopped, and keeps what was
// acknowledged.
type load struct {
	mu    sync.Mutex
	acked map[string]bool
	stop  context.CancelFunc
	done  sync.WaitGroup
}

func startLoad(t *testing.T, client kubernetes.Interface, callers int, round string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{acked: map[string]bool{}, stop: cancel}
	var n atomic.Int64
	for range callers {
		l.done.Go(func() {
			for ctx.Err() == nil {
				name := fmt.Sprintf("%s-%d", round, n.Add(1))
				_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
				switch {
				case err == nil:
					l.mu.Lock()
					l.acked[name] = true
					l.mu.Unlock()
				case apierrors.IsAlreadyExists(err):
					t.Errorf("%s: made twice: %v", name, err)
				}
			}
		})
	}
	t.Cleanup(cancel)
	return l
}

func (l *load) end() map[string]bool {
	l.stop()
	l.done.Wait()
	return l.acked
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

func TestTheRegistryFailsUnderLoad(t *testing.T) {
	h := start(t)
	client := h.Client()
	list, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var mu sync.Mutex
	seen := map[string]int{}
	go func() {
		for e := range w.ResultChan() {
			if m, ok := e.Object.(*corev1.ConfigMap); ok {
				mu.Lock()
				seen[m.Name]++
				mu.Unlock()
			}
		}
	}()
	l := startLoad(t, client, 8, "load")
	for range 2 {
		n := actors(t, h)["control/registry"].Restarts
		lab.Eventually(t, patience, "writes are in flight", func() error {
			if l.count() < 20*int(n+1) {
				return fmt.Errorf("%d writes", l.count())
			}
			return nil
		})
		h.Troupe("actors", "restart", "control/registry")
		lab.Eventually(t, patience, "the registry runs again", func() error {
			if a := actors(t, h)["control/registry"]; a.Restarts != n+1 || a.State != "Running" {
				return fmt.Errorf("%+v", a)
			}
			return nil
		})
	}
	more := l.count()
	lab.Eventually(t, patience, "writes go on", func() error {
		if l.count() < more+20 {
			return fmt.Errorf("%d writes", l.count())
		}
		return nil
	})
	acked := l.end()
	all, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	for _, m := range all.Items {
		stored[m.Name] = true
	}
	for name := range acked {
		if !stored[name] {
			t.Errorf("%s was acknowledged and is not there", name)
		}
	}
	lab.Eventually(t, patience, "the watcher sees every write once", func() error {
		mu.Lock()
		defer mu.Unlock()
		for name := range stored {
			if strings.HasPrefix(name, "load-") && seen[name] != 1 {
				return fmt.Errorf("%s seen %d times", name, seen[name])
			}
		}
		return nil
	})
}

func TestTheAgentIsKilledUnderWrites(t *testing.T) {
	h := start(t)
	acked := map[string]bool{}
	for round := range 10 {
		client := h.Client()
		l := startLoad(t, client, 8, fmt.Sprintf("r%d", round))
		at := 1 + rand.IntN(400)
		lab.Eventually(t, patience, "writes are in flight", func() error {
			if l.count() < at {
				return fmt.Errorf("%d writes", l.count())
			}
			return nil
		})
		h.Kill()
		maps.Copy(acked, l.end())
		h.Up()
	}
	all, err := h.Client().CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	for _, m := range all.Items {
		stored[m.Name] = true
	}
	for name := range acked {
		if !stored[name] {
			t.Errorf("%s was acknowledged and is not there", name)
		}
	}
	t.Logf("%d writes acknowledged, %d stored, over 10 kills", len(acked), len(stored))
}

func TestTheDiskIsFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("lab", dir, "tmpfs", 0, "size=768m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	h := startWith(t, lab.Options{Containerd: lab.StartContainerd(t), DataDir: filepath.Join(dir, "data")}, "troupe-test")
	h.TroupeIn(rc("web", 1, "troupe-test"), "apply", "-f", "-")
	before := waitReady(t, h, "web", 1)

	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	room := int64(fs.Bavail)*fs.Bsize - 100<<20
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, room); err != nil {
		t.Fatal(err)
	}
	var said string
	lab.Eventually(t, patience, "writes are refused", func() error {
		var code int
		if _, said, code = h.TryTroupe("", "create", "configmap", fmt.Sprintf("c%d", time.Now().UnixNano())); code == 0 {
			return errors.New("one was taken")
		}
		return nil
	})
	if !strings.Contains(said, "disk") && !strings.Contains(said, "room") {
		t.Errorf("the refusal does not speak of the disk: %s", said)
	}
	answers(t, h, "http://"+before[0].Status.PodIP+":8080/")
	h.Troupe("get", "pods")
	h.Troupe("delete", "pod", before[0].Name, "--wait=false") // deletes are taken

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.Close()
	lab.Eventually(t, patience, "writes are taken again", func() error {
		if _, said, code := h.TryTroupe("", "create", "configmap", fmt.Sprintf("d%d", time.Now().UnixNano())); code != 0 {
			return errors.New(said)
		}
		return nil
	})
	waitReady(t, h, "web", 1)
}

// bootID is that of the boot that the host's Node tells of.
func bootID(t *testing.T, h *lab.Host) string {
	t.Helper()
	n, err := h.Client().CoreV1().Nodes().Get(t.Context(), h.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n.Status.NodeInfo.BootID
}

func TestTheMachineReboots(t *testing.T) {
	h := startWith(t, lab.Options{}, "troupe-test")
	h.TroupeIn(rc("web", 3, "troupe-test"), "apply", "-f", "-")
	h.TroupeIn(pod("once", "troupe-test", []string{"exit", "0"}, "restartPolicy: Never"), "apply", "-f", "-")
	before := waitReady(t, h, "web", 3)
	waitPod(t, h, "once", "has succeeded", inPhase(corev1.PodSucceeded))
	boot := bootID(t, h)

	h.Reboot()
	h.Up()
	lab.Eventually(t, patience, "the node tells of its new boot", func() error {
		if id := bootID(t, h); id == boot {
			return fmt.Errorf("boot id %s", id)
		}
		return nil
	})
	for _, b := range before {
		waitPod(t, h, b.Name, "runs again", func(p *corev1.Pod) bool {
			return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1
		})
	}
	after := waitReady(t, h, "web", 3)
	for _, b := range before {
		i := slices.IndexFunc(after, func(p corev1.Pod) bool { return p.Name == b.Name })
		if i < 0 || after[i].UID != b.UID {
			t.Errorf("pod %s, %s, did not come back", b.Name, b.UID)
			continue
		}
		answers(t, h, "http://"+after[i].Status.PodIP+":8080/")
	}
	if p := podOf(t, h, "once"); p.Status.Phase != corev1.PodSucceeded {
		t.Errorf("a pod that had ended: %s", p.Status.Phase)
	}
}
