package nodetest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors/nodetest"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/pod"
)

func TestARestartedAgentAdopts(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		w.Runtime.AddImage("deaf:1", fake.Behaviour{IgnoreTERM: true})
		deaf := func(p *corev1.Pod) { p.Spec.Containers[0].Image = "deaf:1" }
		for i := range 30 {
			w.Make(nodetest.Pod(fmt.Sprintf("web-%02d", i)))
		}
		going := w.Make(nodetest.Pod("going", deaf, nodetest.Grace(time.Minute)))
		crashed := w.Make(nodetest.Pod("crashed"))
		dead := w.Make(nodetest.Pod("dead"))
		w.DeletePod("going", -1)
		w.Advance(10 * time.Second)
		before := map[string]corev1.PodStatus{}
		for i := range 30 {
			p := w.Pod(fmt.Sprintf("web-%02d", i))
			before[p.Name] = p.Status
		}
		creates, starts, sandboxes := w.Runtime.Calls("Create"), w.Runtime.Calls("Start"), w.Runtime.Calls("RunSandbox")

		w.StopAgent()
		w.Runtime.Exit(id(crashed, 0), 7)
		w.DeletePod("web-00", -1)
		w.DeletePod("dead", 0)
		late := w.Make(nodetest.Pod("late"))
		w.Advance(10 * time.Second)
		w.StartAgent()
		w.Advance(time.Second)

		w.Want("web-00", "gone")
		w.Want("late", "Running, c#0 running ready")
		w.Want("crashed", "Running, c#1 running ready (7 Error)")
		for i := 1; i < 30; i++ {
			name := fmt.Sprintf("web-%02d", i)
			w.Want(name, "Running, c#0 running ready")
			p := w.Pod(name)
			if p.Status.PodIP != before[name].PodIP || !p.Status.StartTime.Equal(before[name].StartTime) ||
				!p.Status.ContainerStatuses[0].State.Running.StartedAt.Equal(&before[name].ContainerStatuses[0].State.Running.StartedAt) {
				t.Errorf("%s changed: %+v", name, p.Status)
			}
			if got := w.Events(name); got != "Created=1 Pulled=1 Started=1" {
				t.Errorf("events of %s: %s", name, got)
			}
		}
		// The deleted one goes on with its grace, and is not signalled again.
		w.Want("going", "Running, c#0 running ready")
		if got := w.Runtime.Signals(id(going, 0)); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
			t.Errorf("signals %v", got)
		}
		w.Advance(38 * time.Second)
		w.Want("going", "Running, c#0 running ready")
		w.Advance(time.Second)
		w.Want("going", "gone")
		// late and the second try of crashed are all that was made.
		if c, s, b := w.Runtime.Calls("Create")-creates, w.Runtime.Calls("Start")-starts, w.Runtime.Calls("RunSandbox")-sandboxes; c != 2 || s != 2 || b != 1 {
			t.Errorf("made %d containers, started %d, made %d sandboxes", c, s, b)
		}
		for _, c := range w.Containers() {
			if c.Pod.UID == string(dead.UID) {
				t.Errorf("left of a pod deleted meanwhile: %+v", c)
			}
		}
		_ = late
	})
}

func TestWhatIsTakenWhileTheAgentIsDownCounts(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		p := w.Make(nodetest.Pod("web"))
		w.Runtime.Exit(id(p, 0), 3)
		w.Advance(0)
		w.Want("web", "Running, c#1 running ready (3 Error)")
		w.StopAgent()
		w.Runtime.RemoveBehind(id(p, 1))
		w.StartAgent()
		w.Advance(time.Minute)
		w.Want("web", "Running, c#2 running ready (137 ContainerStatusUnknown)")
	})
}

func TestABackoffOutlivesTheAgent(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		p := w.Make(nodetest.Pod("web"))
		for attempt, wait := range []time.Duration{0, 10 * time.Second, 0} {
			w.Advance(time.Second)
			w.Runtime.Exit(id(p, uint32(attempt)), 1)
			w.Advance(wait)
		}
		w.Want("web", "Running, c#2 CrashLoopBackOff (1 Error)")
		w.Advance(15 * time.Second)
		w.RestartAgent()
		w.Want("web", "Running, c#2 CrashLoopBackOff (1 Error)")
		w.Advance(5*time.Second - time.Second/2)
		w.Want("web", "Running, c#2 CrashLoopBackOff (1 Error)")
		w.Advance(time.Second / 2)
		w.Want("web", "Running, c#3 running ready (1 Error)")
	})
}

func TestAReboot(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		web := w.Make(nodetest.Pod("web"))
		job := w.Make(nodetest.Pod("job", nodetest.Policy(corev1.RestartPolicyNever)))
		w.StopAgent()
		w.Runtime.Reboot()
		w.Disk.Reboot()
		w.Host.BootID = "b2"
		w.StartAgent()
		w.Advance(time.Second)
		w.Want("web", "Running, c#1 running ready (255 Unknown)")
		w.Want("job", "Failed, c#0 255 Unknown")
		if w.Pod("web").UID != web.UID || w.Pod("web").Status.PodIP != web.Status.PodIP && web.Status.PodIP != "" {
			t.Errorf("another pod: %+v", w.Pod("web"))
		}
		if got := w.Events("web"); got != "Created=2 Pulled=2 SandboxChanged=1 Started=2" {
			t.Errorf("events: %s", got)
		}
		n := w.Get(api.Key{Resource: "nodes", Name: nodetest.Node}).(*corev1.Node)
		if n.Status.NodeInfo.BootID != "b2" {
			t.Errorf("boot ID %q", n.Status.NodeInfo.BootID)
		}
		_ = job
	})
}

func TestWhatIsTakenIsMadeAgain(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		p := w.Make(nodetest.Pod("web"))
		w.Advance(time.Second)
		w.Runtime.RemoveBehind(id(p, 0))
		w.Advance(0)
		w.Want("web", "Running, c#1 running ready (137 ContainerStatusUnknown)")

		// A sandbox whose namespaces somebody unmounted makes no event: the sweep finds it.
		w.Runtime.BreakSandbox(string(p.UID))
		w.Advance(31 * time.Second)
		w.Want("web", "Running, c#2 running ready (0 Completed)")
		if got := condition(w.Pod("web"), corev1.PodReadyToStartContainers); got != "True" {
			t.Errorf("PodReadyToStartContainers is %s", got)
		}

		// One that is removed with all its containers is heard of at once.
		if err := w.Runtime.RemoveSandbox(t.Context(), string(p.UID)); err != nil {
			t.Fatal(err)
		}
		w.Advance(time.Second)
		w.Want("web", "Running, c#3 running ready (137 ContainerStatusUnknown)")
		if w.Pod("web").UID != p.UID {
			t.Error("another pod")
		}
	})
}

func TestWhatNobodyWantsIsRemoved(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		p := w.Make(nodetest.Pod("web"))
		const stray types.UID = "5a5a5a5a-0000-4000-8000-000000000000"
		foreign := func(uid types.UID, name string) container.Spec {
			return container.Spec{
				ID: pod.ContainerID(uid, name, 0), Sandbox: string(uid), Name: name, Image: nodetest.Image,
				Pod: container.Pod{Namespace: "default", Name: "x", UID: string(uid)},
			}
		}
		put := func() {
			t.Helper()
			_, err := w.Runtime.RunSandbox(t.Context(), container.SandboxSpec{ID: string(stray), Pod: container.Pod{UID: string(stray)}})
			odd := foreign(p.UID, "c")
			odd.ID, odd.Attempt = "odd", 9
			for _, s := range []container.Spec{foreign(stray, "x"), foreign(p.UID, "stranger"), odd} {
				err = errors.Join(err, w.Runtime.Create(t.Context(), s), w.Runtime.Start(t.Context(), s.ID))
			}
			if err != nil {
				t.Fatal(err)
			}
			w.Volumes.Put(stray)
			w.Volumes.Put("6b6b")
			w.Disk.PutLog(stray)
			w.Disk.PutLog("7c7c")
		}
		check := func() {
			t.Helper()
			if c := w.Containers(); len(c) != 1 || c[0].ID != id(p, 0) {
				t.Errorf("containers: %+v", c)
			}
			if s, _ := w.Runtime.Sandboxes(t.Context()); len(s) != 1 {
				t.Errorf("sandboxes: %+v", s)
			}
			if v, _ := w.Volumes.Pods(t.Context()); len(v) != 1 {
				t.Errorf("volumes: %v", v)
			}
			if f, _ := w.Disk.Pods(t.Context()); len(f) != 0 {
				t.Errorf("files: %v", f)
			}
			w.Want("web", "Running, c#0 running ready")
		}
		put() // behind the agent's back
		w.Advance(31 * time.Second)
		check()
		w.StopAgent()
		put() // while it was away
		w.StartAgent()
		w.Advance(31 * time.Second)
		check()
	})
}

func TestTheRuntimeGoesAndComesBack(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		web := w.Make(nodetest.Pod("web"))
		died := w.Make(nodetest.Pod("died"))
		ready := func() string {
			n := w.Get(api.Key{Resource: "nodes", Name: nodetest.Node}).(*corev1.Node)
			for _, c := range n.Status.Conditions {
				if c.Type == corev1.NodeReady {
					return string(c.Status) + " " + c.Reason
				}
			}
			return "none"
		}
		if got := ready(); got != "True KubeletReady" {
			t.Fatalf("Ready is %s", got)
		}
		creates := w.Runtime.Calls("Create")
		w.Runtime.Disconnect()
		w.Advance(6 * time.Second)
		if got := ready(); got != "False KubeletNotReady" {
			t.Errorf("Ready is %s", got)
		}
		w.Runtime.Exit(id(died, 0), 1) // its event is lost
		w.Make(nodetest.Pod("late"))
		w.DeletePod("web", -1)
		w.Advance(time.Minute)
		w.Want("late", "Pending, c#0 ContainerCreating")
		w.Want("web", "Running, c#0 running ready")
		w.Runtime.Reconnect()
		w.Advance(10 * time.Second)
		if got := ready(); got != "True KubeletReady" {
			t.Errorf("Ready is %s", got)
		}
		w.Want("late", "Running, c#0 running ready")
		w.Want("died", "Running, c#1 running ready (1 Error)")
		w.Want("web", "gone")
		if got := w.Runtime.Calls("Create") - creates; got != 2 {
			t.Errorf("made %d containers", got)
		}
		_ = web
	})
}

func TestEveryActorIsRestarted(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		w.Runtime.AddImage("deaf:1", fake.Behaviour{IgnoreTERM: true})
		p := w.Make(nodetest.Pod("web"))
		other := w.Make(nodetest.Pod("other"))
		looping := w.Make(nodetest.Pod("looping"))
		w.Runtime.Exit(id(looping, 0), 1)
		w.Advance(0)
		w.Runtime.Exit(id(looping, 1), 1)
		w.Advance(0)
		going := w.Make(nodetest.Pod("going", nodetest.Grace(10*time.Minute), func(p *corev1.Pod) { p.Spec.Containers[0].Image = "deaf:1" }))
		w.DeletePod("going", -1)
		w.Make(nodetest.Pod("waiting", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "late:1" }))
		creates := w.Runtime.Calls("Create")
		for _, path := range []string{
			"node/images", "node/volumes", "node/machine", "node/pods", nodetest.Path(p), nodetest.Path(p) + "/c",
			nodetest.Path(going), nodetest.Path(going) + "/c", nodetest.Path(looping) + "/c", "control/registry",
		} {
			w.Crash(path)
			w.Advance(100 * time.Millisecond)
			if got := w.Runtime.Calls("Create"); got != creates {
				t.Errorf("after a failure of %s, %d containers were made", path, got-creates)
			}
			w.Want("web", "Running, c#0 running ready")
			w.Want("other", "Running, c#0 running ready")
			w.Want("looping", "Running, c#1 CrashLoopBackOff (1 Error)")
			w.Want("going", "Running, c#0 running ready")
			if got := w.Runtime.Signals(id(going, 0)); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
				t.Errorf("after a failure of %s, signals %v", path, got)
			}
		}
		// They work: an image that comes is heard of, a container that ends runs again.
		w.Runtime.AddImage("late:1", fake.Behaviour{})
		w.Advance(11 * time.Second)
		w.Want("waiting", "Running, c#0 running ready")
		w.Want("looping", "Running, c#2 running ready (1 Error)")
		w.Runtime.Exit(id(p, 0), 1)
		w.Advance(0)
		w.Want("web", "Running, c#1 running ready (1 Error)")
		w.Advance(10 * time.Minute)
		w.Want("going", "gone")
		_ = other
	})
}

// TestAnyCallMayFail lets each call of the runtime that a pod needs fail once,
// before its work and after it, and then finishes all the same.
func TestAnyCallMayFail(t *testing.T) {
	for _, method := range []string{"RunSandbox", "Image", "Create", "Start", "Container", "Signal", "RemoveSandbox", "Containers", "Sandboxes", "Version", "Configure"} {
		for _, done := range []bool{false, true} {
			for _, err := range []error{errors.New("input/output error"), container.ErrGone, container.ErrBusy} {
				t.Run(fmt.Sprintf("%s, done %v, %v", method, done, err), func(t *testing.T) {
					nodetest.Run(t, func(w *nodetest.World) {
						fault := func() { w.Runtime.Inject(fake.Fault{Method: method, Err: err, Done: done}) }
						fault()
						p := w.Make(nodetest.Pod("web"))
						w.Advance(time.Minute)
						attempt := w.Pod("web").Status.ContainerStatuses[0].RestartCount
						if got := nodetest.State(w.Pod("web")); !strings.HasPrefix(got, fmt.Sprintf("Running, c#%d running ready", attempt)) {
							t.Fatalf("web: %s", got)
						}
						fault()
						w.Runtime.Exit(id(p, uint32(attempt)), 1)
						w.Advance(2 * time.Minute)
						if got := nodetest.State(w.Pod("web")); !strings.Contains(got, "running ready") {
							t.Errorf("web: %s", got)
						}
						fault()
						w.RestartAgent()
						w.Advance(time.Minute)
						fault()
						w.DeletePod("web", -1)
						w.Advance(2 * time.Minute)
						w.Want("web", "gone")
						w.Nothing()
					})
				})
			}
		}
	}
}

func TestDoubleAndForeignMessagesChangeNothing(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		p := w.Make(nodetest.Pod("web"))
		creates, version := w.Runtime.Calls("Create"), w.Pod("web").ResourceVersion
		for _, m := range []any{
			pod.Keep{Pod: w.Pod("web")},
			pod.Wish{Pod: w.Pod("web")},
			pod.Look{Found: pod.Found{}},
			pod.Written{Number: 1},
			pod.Mounted{UID: p.UID},
			pod.Unmounted{UID: p.UID},
			container.Event{Kind: container.Removed, ContainerID: string(p.UID)},
			container.Event{Kind: container.ContainerExited, ContainerID: id(p, 0)},
		} {
			w.Send(nodetest.Path(p), m)
		}
		for _, m := range []any{
			pod.Run{Pod: w.Pod("web"), Name: "c"},
			pod.Enter{Number: 1},
			pod.Seen{},
			pod.ImageFound{Name: nodetest.Image, Err: container.ErrNotFound},
			container.Event{Kind: container.ContainerExited, ContainerID: id(p, 0)},
			container.Event{Kind: container.Removed, ContainerID: id(p, 0)},
		} {
			w.Send(nodetest.Path(p)+"/c", m)
		}
		for _, m := range []any{
			&command.Synced{}, &command.Committed{ID: "another"},
			pod.Ended{UID: "nobody"},
			pod.Report{UID: "nobody", Number: 1},
			container.Event{Kind: container.Gap},
			pod.VolumesOf{},
		} {
			w.Send("node/pods", m)
		}
		w.Advance(time.Minute)
		w.Want("web", "Running, c#0 running ready")
		if w.Runtime.Calls("Create") != creates || w.Pod("web").ResourceVersion != version {
			t.Errorf("%d containers were made, version %s became %s", w.Runtime.Calls("Create")-creates, version, w.Pod("web").ResourceVersion)
		}
	})
}
