package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/ptr"

	"github.com/troupe-sh/troupe/test/lab"
)

// What is measured how often.
const (
	sequential = 50
	restarts   = 10
	patience   = 2 * time.Minute
)

// pods measures what becomes of pods, beside raw containers.
func pods(b *bench) {
	c := lab.StartContainerd(b)
	r := newRaw(b, c)
	b.Cleanup(r.close)
	h := lab.Start(b, lab.Options{Containerd: c})
	h.LoadImages("troupe-test")
	p := newPodBench(b, h)

	p.create() // the first one warms both
	r.one(1)
	p.clear()

	ours, beside := p.one(sequential), r.one(sequential)
	b.ratio("one pod, created → Ready, p50", percentile(ours, 50), percentile(beside, 50), 1.4)
	b.shown("one pod, created → Ready, p99", percentile(ours, 99), percentile(beside, 99))
	for _, n := range []int{30, 100} {
		b.ratio(fmt.Sprintf("%d pods at once", n), p.many(n), r.many(n), 1.25)
	}
	b.ratio("container killed → running, p50", percentile(p.again(restarts), 50), percentile(r.again(restarts), 50), 2)
	b.ratio("pod deleted → replacement Ready, p50", percentile(p.replaced(restarts), 50), percentile(beside, 50), 2)
}

// podBench watches the pods of a host.
type podBench struct {
	b      *bench
	h      *lab.Host
	client kubernetes.Interface
	api    typed.PodInterface
	n      int
}

func newPodBench(b *bench, h *lab.Host) *podBench {
	client, err := kubernetes.NewForConfig(h.Config())
	b.must(err)
	return &podBench{b: b, h: h, client: client, api: client.CoreV1().Pods("default")}
}

func spec() corev1.PodSpec {
	return corev1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](1),
		Containers: []corev1.Container{{
			Name: "c", Image: "troupe-test", ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{"signals"},
		}},
	}
}

func ready(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// watching starts a watch from now and returns what waits until f has seen enough.
func (p *podBench) watching() (until func(what string, f func(*corev1.Pod, bool) bool) time.Time, stop func()) {
	l, err := p.api.List(context.Background(), metav1.ListOptions{})
	p.b.must(err)
	w, err := p.api.Watch(context.Background(), metav1.ListOptions{ResourceVersion: l.ResourceVersion})
	p.b.must(err)
	return func(what string, f func(*corev1.Pod, bool) bool) time.Time {
		late := time.After(patience)
		for {
			select {
			case e, ok := <-w.ResultChan():
				if !ok {
					p.b.Fatalf("%s: the watch ended", what)
				}
				if o, ok := e.Object.(*corev1.Pod); ok && f(o, e.Type == watch.Deleted) {
					return time.Now()
				}
			case <-late:
				p.b.Fatalf("%s: not within %s", what, patience)
			}
		}
	}, w.Stop
}

// create makes a pod and returns it when it is Ready, with how long that took.
func (p *podBench) create() (*corev1.Pod, time.Duration) {
	until, stop := p.watching()
	defer stop()
	p.n++
	name := "p" + strconv.Itoa(p.n)
	from := time.Now()
	_, err := p.api.Create(context.Background(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec()}, metav1.CreateOptions{})
	p.b.must(err)
	var made *corev1.Pod
	at := until(name+" is Ready", func(o *corev1.Pod, _ bool) bool {
		made = o
		return o.Name == name && ready(o)
	})
	return made, at.Sub(from)
}

// clear removes all pods.
func (p *podBench) clear() {
	p.b.must(p.api.DeleteCollection(context.Background(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, metav1.ListOptions{}))
	lab.Eventually(p.b, patience, "no container is left", func() error {
		if out := p.h.Ctr("containers", "ls", "-q"); strings.TrimSpace(out) != "" {
			return fmt.Errorf("%d are", len(strings.Fields(out)))
		}
		return nil
	})
}

func (p *podBench) one(n int) []time.Duration {
	var took []time.Duration
	for range n {
		_, d := p.create()
		took = append(took, d)
		p.clear()
	}
	return took
}

// controller makes a ReplicationController of n pods and returns how long it
// takes until all are Ready.
func (p *podBench) controller(n int) time.Duration {
	until, stop := p.watching()
	defer stop()
	from := time.Now()
	_, err := p.client.CoreV1().ReplicationControllers("default").Create(context.Background(), &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: "many"},
		Spec: corev1.ReplicationControllerSpec{
			Replicas: ptr.To(int32(n)), Selector: map[string]string{"app": "many"},
			Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "many"}}, Spec: spec()},
		},
	}, metav1.CreateOptions{})
	p.b.must(err)
	there := map[string]bool{}
	return until(fmt.Sprintf("%d pods are Ready", n), func(o *corev1.Pod, gone bool) bool {
		if ready(o) && !gone {
			there[o.Name] = true
		}
		return len(there) == n
	}).Sub(from)
}

func (p *podBench) removeController() {
	orphan := metav1.DeletePropagationOrphan
	p.b.must(p.client.CoreV1().ReplicationControllers("default").Delete(context.Background(), "many", metav1.DeleteOptions{PropagationPolicy: &orphan}))
	lab.Eventually(p.b, patience, "the controller is gone", func() error {
		l, err := p.client.CoreV1().ReplicationControllers("default").List(context.Background(), metav1.ListOptions{})
		if err == nil && len(l.Items) > 0 {
			err = fmt.Errorf("it is there")
		}
		return err
	})
	p.clear()
}

func (p *podBench) many(n int) time.Duration {
	took := p.controller(n)
	p.removeController()
	return took
}

// again kills the container of n pods, each once: the second time would back off.
func (p *podBench) again(n int) []time.Duration {
	var took []time.Duration
	for range n {
		made, _ := p.create()
		pid := p.pid(made)
		until, stop := p.watching()
		from := time.Now()
		p.b.must(syscall.Kill(pid, syscall.SIGKILL))
		at := until("the container runs again", func(o *corev1.Pod, _ bool) bool {
			return o.Name == made.Name && ready(o) && o.Status.ContainerStatuses[0].RestartCount == 1
		})
		stop()
		took = append(took, at.Sub(from))
		p.clear()
	}
	return took
}

// pid is the process of a pod's container.
func (p *podBench) pid(o *corev1.Pod) int {
	_, id, _ := strings.Cut(o.Status.ContainerStatuses[0].ContainerID, "://")
	for line := range strings.Lines(p.h.Ctr("tasks", "ls")) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == id {
			pid, err := strconv.Atoi(f[1])
			p.b.must(err)
			return pid
		}
	}
	p.b.Fatalf("container %s does not run", id)
	return 0
}

// replaced deletes a controller's only pod n times.
func (p *podBench) replaced(n int) []time.Duration {
	p.controller(1)
	var took []time.Duration
	for range n {
		l, err := p.api.List(context.Background(), metav1.ListOptions{LabelSelector: "app=many"})
		p.b.must(err)
		old := l.Items[slices.IndexFunc(l.Items, func(o corev1.Pod) bool { return ready(&o) })]
		until, stop := p.watching()
		from := time.Now()
		p.b.must(p.api.Delete(context.Background(), old.Name, metav1.DeleteOptions{}))
		gone, fresh := false, time.Time{}
		until("the replacement is Ready and the old pod gone", func(o *corev1.Pod, deleted bool) bool {
			if o.Name == old.Name {
				gone = gone || deleted
			} else if ready(o) && fresh.IsZero() {
				fresh = time.Now()
			}
			return gone && !fresh.IsZero()
		})
		stop()
		took = append(took, fresh.Sub(from))
	}
	p.removeController()
	return took
}

// startToReady measures from the agent's start on an empty machine to the
// first pod, whose image containerd has already.
func startToReady(b *bench) {
	c := lab.StartContainerd(b)
	var took []time.Duration
	for range 5 {
		h := lab.NewHost(b, lab.Options{Containerd: c})
		out, err := exec.Command("ctr", "--address", c.Address, "--namespace", h.ID, "images", "import", lab.Image(b, "troupe-test")).CombinedOutput()
		if err != nil {
			b.Fatalf("import: %v: %s", err, out)
		}
		from := time.Now()
		up := make(chan struct{})
		go func() {
			defer close(up)
			b.guarded(h.Up)
		}()
		client, err := kubernetes.NewForConfig(h.Config())
		b.must(err)
		api := client.CoreV1().Pods("default")
		for late := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
			_, err := api.Create(context.Background(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "first"}, Spec: spec()}, metav1.CreateOptions{})
			if err == nil {
				break
			}
			if time.Now().After(late) {
				b.Fatalf("no pod is taken: %v", err)
			}
		}
		lab.Eventually(b, patience, "the first pod is Ready", func() error {
			o, err := api.Get(context.Background(), "first", metav1.GetOptions{})
			if err == nil && !ready(o) {
				err = fmt.Errorf("phase %s", o.Status.Phase)
			}
			return err
		})
		took = append(took, time.Since(from))
		<-up
	}
	d := percentile(took, 50)
	b.add(figure{what: "process start → first pod Ready, p50 of 5", ours: round(d), beside: "Kubernetes 10.8s", limit: "≤ 1.5s", missed: d > 1500*time.Millisecond})
}

// idle measures what the agent uses with nothing to do.
func idle(b *bench) {
	h := lab.Start(b, lab.Options{Containerd: lab.StartContainerd(b)})
	const settle, span = 5 * time.Second, 20 * time.Second
	time.Sleep(settle)
	pids := append(h.Processes("troupe-keeper"), h.PID())
	before := cpu(b, pids)
	time.Sleep(span)
	used := float64(cpu(b, pids)-before) / float64(span) * 100
	var memory int64
	for _, pid := range pids {
		memory += resident(b, pid)
	}
	mib := memory >> 20
	b.add(figure{what: "agent + keeper, idle: memory", ours: fmt.Sprintf("%d MiB", mib), beside: "Kubernetes 612 MiB", limit: "≤ 80 MiB", missed: mib > 80})
	b.add(figure{what: "agent + keeper, idle: of a core", ours: fmt.Sprintf("%.2f %%", used), beside: "Kubernetes 4.6 %", limit: "≤ 0.5 %", missed: used > 0.5})
}

// cpu is what the processes have used so far.
func cpu(b *bench, pids []int) time.Duration {
	var all time.Duration
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		b.must(err)
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
		for _, ticks := range f[11:13] { // user and system
			n, err := strconv.ParseInt(ticks, 10, 64)
			b.must(err)
			all += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return all
}

// resident is the memory of a process that is in use.
func resident(b *bench, pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	b.must(err)
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			b.must(err)
			return n << 10
		}
	}
	b.Fatalf("process %d has no VmRSS", pid)
	return 0
}
