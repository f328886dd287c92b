package nodetest_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/troupe-sh/troupe/actors/nodetest"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// after gives a pod init containers, each of an image NAME:1; those whose
// names begin with side are sidecars.
func after(names ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, name := range names {
			c := corev1.Container{Name: name, Image: name + ":1", ImagePullPolicy: corev1.PullIfNotPresent}
			if strings.HasPrefix(name, "side") {
				always := corev1.ContainerRestartPolicyAlways
				c.RestartPolicy = &always
			}
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		}
	}
}

// steps are what its init containers and its main ones show, and whether it is
// said to be initialized.
func steps(p *corev1.Pod) string {
	if p == nil {
		return "gone"
	}
	parts := []string{string(p.Status.Phase)}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		s := fmt.Sprintf("%s#%d", c.Name, c.RestartCount)
		switch {
		case c.State.Running != nil:
			s += " runs"
		case c.State.Terminated != nil:
			s += fmt.Sprintf(" %d %s", c.State.Terminated.ExitCode, c.State.Terminated.Reason)
		case c.State.Waiting != nil:
			s += " " + c.State.Waiting.Reason
		}
		if c.Ready {
			s += " ready"
		}
		parts = append(parts, s)
	}
	return strings.Join(append(parts, condition(p, corev1.PodInitialized)), ", ")
}

func wantSteps(w *nodetest.World, name, want string) {
	w.T.Helper()
	if got := steps(w.Pod(name)); got != want {
		w.T.Errorf("pod %s:\n got  %s\n want %s", name, got, want)
	}
}

func idOf(p *corev1.Pod, name string, attempt uint32) string {
	return pod.ContainerID(p.UID, name, attempt)
}

// setups adds images of init containers that take 10 s, and of sidecars.
func setups(w *nodetest.World, names ...string) {
	for _, name := range names {
		b := fake.Behaviour{Exits: true, ExitAfter: 10 * time.Second}
		if strings.HasPrefix(name, "side") {
			b = fake.Behaviour{}
		}
		w.Runtime.AddImage(name+":1", b)
	}
}

func TestInitContainersRunOneAfterAnother(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		setups(w, "a", "b")
		p := w.Make(nodetest.Pod("web", after("a", "b"), func(p *corev1.Pod) {
			p.Spec.InitContainers[0].Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)2"}}
		}))
		wantSteps(w, "web", "Pending, a#0 runs, b#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized")
		for _, c := range w.Pod("web").Status.Conditions {
			if c.Type == corev1.PodInitialized && c.Message != "containers with incomplete status: [a b]" {
				t.Errorf("message %q", c.Message)
			}
		}
		if s, _ := w.Runtime.Spec(idOf(p, "a", 0)); !slices.Contains(s.Env, "B=12") || s.Sandbox != string(p.UID) {
			t.Errorf("spec %+v", s)
		}
		w.Advance(10 * time.Second)
		wantSteps(w, "web", "Pending, a#0 0 Completed ready, b#0 runs, c#0 PodInitializing, False ContainersNotInitialized")
		w.Advance(10 * time.Second)
		wantSteps(w, "web", "Running, a#0 0 Completed ready, b#0 0 Completed ready, c#0 runs ready, True")
		if got := w.Events("web"); got != "Created=3 Pulled=3 Started=3" {
			t.Errorf("events: %s", got)
		}
		// What they did is done, whatever becomes of the others.
		w.Runtime.Exit(id(p, 0), 1)
		w.Runtime.RemoveBehind(idOf(p, "a", 0))
		w.RestartAgent()
		w.Crash(nodetest.Path(p) + "/b")
		w.Crash(nodetest.Path(p) + "/a")
		w.Advance(time.Minute)
		wantSteps(w, "web", "Running, a#0 0 Completed ready, b#0 0 Completed ready, c#1 runs ready, True")
		w.DeletePod("web", -1)
		w.Advance(time.Second)
		w.Want("web", "gone")
		w.Nothing()
	})
}

func TestAnInitContainerFails(t *testing.T) {
	for policy, want := range map[corev1.RestartPolicy][]string{
		corev1.RestartPolicyAlways: {
			"Pending, a#1 runs, b#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized",
			"Pending, a#1 CrashLoopBackOff, b#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized",
		},
		corev1.RestartPolicyNever: {
			"Failed, a#0 1 Error, b#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized",
			"Failed, a#0 1 Error, b#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized",
		},
	} {
		t.Run(string(policy), func(t *testing.T) {
			nodetest.Run(t, func(w *nodetest.World) {
				setups(w, "b")
				w.Runtime.AddImage("a:1", fake.Behaviour{Exits: true, ExitAfter: 2 * time.Second, ExitCode: 1})
				p := w.Make(nodetest.Pod("web", nodetest.Policy(policy), after("a", "b")))
				w.Advance(2 * time.Second)
				wantSteps(w, "web", want[0])
				w.Advance(2 * time.Second)
				wantSteps(w, "web", want[1])
				if policy == corev1.RestartPolicyNever {
					if len(w.Containers()) > 0 {
						t.Errorf("containers: %v", w.Containers())
					}
					return
				}
				w.Runtime.AddImage("a:1", fake.Behaviour{})
				w.Advance(10 * time.Second)
				w.Runtime.Exit(idOf(p, "a", 2), 0)
				w.Advance(11 * time.Second)
				wantSteps(w, "web", "Running, a#2 0 Completed ready, b#0 0 Completed ready, c#0 runs ready, True")
			})
		})
	}
}

// TestAnAgentAmidInitContainersAdopts: what is done is not done again, what
// runs goes on.
func TestAnAgentAmidInitContainersAdopts(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		setups(w, "a", "b")
		p := w.Make(nodetest.Pod("web", after("a", "b")))
		for _, harm := range []func(){
			w.RestartAgent,
			func() { w.Crash(nodetest.Path(p)) },
			func() { w.Crash(nodetest.Path(p) + "/a") },
		} {
			harm()
			w.Advance(time.Second)
			wantSteps(w, "web", "Pending, a#0 runs, b#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized")
		}
		w.Advance(7 * time.Second)
		for _, harm := range []func(){
			w.RestartAgent,
			func() { w.Crash(nodetest.Path(p)) },
			func() { w.Crash(nodetest.Path(p) + "/a") },
			func() { w.Crash(nodetest.Path(p) + "/b") },
			func() { w.Runtime.RemoveBehind(idOf(p, "a", 0)); w.RestartAgent() },
		} {
			harm()
			w.Advance(time.Second)
			wantSteps(w, "web", "Pending, a#0 0 Completed ready, b#0 runs, c#0 PodInitializing, False ContainersNotInitialized")
		}
		w.StopAgent()
		w.Advance(time.Minute)
		w.StartAgent()
		w.Advance(time.Second)
		wantSteps(w, "web", "Running, a#0 0 Completed ready, b#0 0 Completed ready, c#0 runs ready, True")
		if got := w.Runtime.Calls("Create"); got != 3 {
			t.Errorf("%d containers were made", got)
		}
	})
}

func TestInANewSandboxInitContainersRunAgain(t *testing.T) {
	const (
		first = "Pending, a#1 runs, b#0 0 Completed ready, c#0 255 Unknown, True"
		last  = "Running, a#1 0 Completed ready, b#1 0 Completed ready, c#1 runs ready, True"
	)
	for name, harm := range map[string]func(w *nodetest.World, p *corev1.Pod){
		"a reboot": func(w *nodetest.World, _ *corev1.Pod) {
			w.StopAgent()
			w.Runtime.Reboot()
			w.Disk.Reboot()
			w.StartAgent()
		},
		"an agent that dies after the reboot": func(w *nodetest.World, p *corev1.Pod) {
			w.StopAgent()
			w.Runtime.Reboot()
			w.Disk.Reboot()
			w.StartAgent()
			w.Advance(time.Second)
			wantSteps(w, "web", first)
			w.RestartAgent()
			w.Crash(nodetest.Path(p))
			w.Crash(nodetest.Path(p) + "/a")
			w.Advance(time.Second)
			wantSteps(w, "web", first)
		},
		"amid the first": func(w *nodetest.World, p *corev1.Pod) {
			w.StopAgent()
			w.Runtime.Reboot()
			w.Disk.Reboot()
			w.StartAgent()
			w.Advance(11 * time.Second) // b runs again
			w.RestartAgent()
			wantSteps(w, "web", "Pending, a#1 0 Completed ready, b#1 runs, c#0 255 Unknown, True")
		},
	} {
		t.Run(name, func(t *testing.T) {
			nodetest.Run(t, func(w *nodetest.World) {
				setups(w, "a", "b")
				p := w.Make(nodetest.Pod("web", after("a", "b")))
				w.Advance(21 * time.Second)
				harm(w, p)
				w.Advance(25 * time.Second)
				wantSteps(w, "web", last)
			})
		})
	}
	t.Run("somebody breaks it", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			setups(w, "a", "b")
			p := w.Make(nodetest.Pod("web", after("a", "b")))
			w.Advance(5 * time.Second)
			w.Runtime.BreakSandbox(string(p.UID)) // amid the first
			w.Advance(31 * time.Second)
			w.Advance(time.Minute)
			wantSteps(w, "web", "Running, a#1 0 Completed ready, b#0 0 Completed ready, c#0 runs ready, True")
		})
	})
}

func TestDeletionAmidInitContainers(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		w.Runtime.AddImage("a:1", fake.Behaviour{TermAfter: 3 * time.Second})
		setups(w, "b")
		p := w.Make(nodetest.Pod("web", after("a", "b"), nodetest.Finalizer("example.com/hold")))
		w.DeletePod("web", -1)
		w.Advance(time.Second)
		wantSteps(w, "web", "Pending, a#0 runs, b#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized")
		w.RestartAgent()
		if got := w.Runtime.Signals(idOf(p, "a", 0)); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
			t.Errorf("signals %v", got)
		}
		w.Advance(2 * time.Second)
		wantSteps(w, "web", "Failed, a#0 0 Completed ready, b#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized")
		w.RemoveFinalizers(p)
		w.Advance(time.Second)
		w.Nothing()
	})
}

func TestSidecars(t *testing.T) {
	t.Run("go on beside the rest, and are restarted", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			setups(w, "a", "side1", "b", "side2")
			p := w.Make(nodetest.Pod("web", after("a", "side1", "b", "side2"), nodetest.Policy(corev1.RestartPolicyOnFailure)))
			w.Advance(10 * time.Second)
			wantSteps(w, "web", "Pending, a#0 0 Completed ready, side1#0 runs ready, b#0 runs, side2#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized")
			w.Runtime.Exit(idOf(p, "side1", 0), 0)
			w.Advance(0)
			w.RestartAgent()
			wantSteps(w, "web", "Pending, a#0 0 Completed ready, side1#1 runs ready, b#0 runs, side2#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized")
			w.Advance(10 * time.Second)
			wantSteps(w, "web", "Running, a#0 0 Completed ready, side1#1 runs ready, b#0 0 Completed ready, side2#0 runs ready, c#0 runs ready, True")
			w.Runtime.Exit(idOf(p, "side1", 1), 1)
			w.Advance(0)
			wantSteps(w, "web", "Running, a#0 0 Completed ready, side1#1 CrashLoopBackOff, b#0 0 Completed ready, side2#0 runs ready, c#0 runs ready, True")
			if got := condition(w.Pod("web"), corev1.PodReady); got != "False ContainersNotReady" {
				t.Errorf("Ready is %s", got)
			}
			w.RestartAgent()
			w.Advance(11 * time.Second)
			wantSteps(w, "web", "Running, a#0 0 Completed ready, side1#2 runs ready, b#0 0 Completed ready, side2#0 runs ready, c#0 runs ready, True")
		})
	})
	t.Run("keep no pod alive that has done its work", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Runtime.AddImage("side1:1", fake.Behaviour{TermAfter: 3 * time.Second})
			w.Runtime.AddImage("side2:1", fake.Behaviour{IgnoreTERM: true})
			p := w.Make(nodetest.Pod("job", after("side1", "side2"), nodetest.Policy(corev1.RestartPolicyNever), nodetest.Grace(10*time.Second)))
			w.Advance(time.Second)
			w.Runtime.Exit(id(p, 0), 0)
			w.Advance(time.Second)
			// The last first.
			if one, two := w.Runtime.Signals(idOf(p, "side1", 0)), w.Runtime.Signals(idOf(p, "side2", 0)); len(one) != 0 || len(two) != 1 {
				t.Errorf("signals %v, %v", one, two)
			}
			wantSteps(w, "job", "Running, side1#0 runs ready, side2#0 runs ready, c#0 0 Completed, True")
			w.Advance(9 * time.Second)
			if one := w.Runtime.Signals(idOf(p, "side1", 0)); !slices.Equal(one, []syscall.Signal{syscall.SIGTERM}) {
				t.Errorf("signals %v once the grace period is over", one)
			}
			wantSteps(w, "job", "Running, side1#0 runs ready, side2#0 137 Error, c#0 0 Completed, True")
			w.Advance(2 * time.Second)
			wantSteps(w, "job", "Succeeded, side1#0 137 Error, side2#0 137 Error, c#0 0 Completed, True PodCompleted")
			w.DeletePod("job", -1)
			w.Advance(time.Second)
			w.Nothing()
		})
	})
	t.Run("end after the others, the last first", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			slow := fake.Behaviour{TermAfter: 3 * time.Second}
			for _, image := range []string{"side1:1", "side2:1", "slow:1"} {
				w.Runtime.AddImage(image, slow)
			}
			p := w.Make(nodetest.Pod("web", after("side1", "side2"), func(p *corev1.Pod) { p.Spec.Containers[0].Image = "slow:1" }))
			w.DeletePod("web", -1)
			for i, name := range []string{"c", "side2", "side1"} {
				var asked []string
				for _, n := range []string{"c", "side2", "side1"} {
					if c, err := w.Runtime.Container(t.Context(), idOf(p, n, 0)); err == nil && c.State == container.Running && len(w.Runtime.Signals(c.ID)) > 0 {
						asked = append(asked, n)
					}
				}
				if !slices.Equal(asked, []string{name}) {
					t.Errorf("turn %d: %v were asked to end", i, asked)
				}
				if i == 1 {
					w.RestartAgent()
				}
				w.Advance(3 * time.Second)
			}
			w.Want("web", "gone")
			w.Nothing()
		})
	})
	t.Run("by force", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Runtime.AddImage("side1:1", fake.Behaviour{IgnoreTERM: true})
			w.Make(nodetest.Pod("web", after("side1")))
			w.DeletePod("web", 0)
			w.Want("web", "gone")
			w.Nothing()
		})
	})
	t.Run("end with a pod whose init container fails", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			setups(w, "side1")
			w.Runtime.AddImage("a:1", fake.Behaviour{Exits: true, ExitAfter: 5 * time.Second, ExitCode: 4})
			w.Make(nodetest.Pod("web", after("side1", "a"), nodetest.Policy(corev1.RestartPolicyNever)))
			w.Advance(6 * time.Second)
			wantSteps(w, "web", "Failed, side1#0 0 Completed, a#0 4 Error, c#0 PodInitializing, False ContainersNotInitialized")
			if len(w.Containers()) > 0 {
				t.Errorf("containers: %v", w.Containers())
			}
		})
	})
}

func TestActiveDeadline(t *testing.T) {
	within := func(d time.Duration) func(*corev1.Pod) {
		seconds := int64(d / time.Second)
		return func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &seconds }
	}
	exceeded := func(w *nodetest.World, want string) {
		w.T.Helper()
		w.Want("web", want)
		if s := w.Pod("web").Status; s.Reason != "DeadlineExceeded" || s.Message != "Pod was active on the node longer than the specified deadline" {
			w.T.Errorf("reason %q, message %q", s.Reason, s.Message)
		}
		if len(w.Containers()) > 0 {
			w.T.Errorf("containers: %v", w.Containers())
		}
	}
	t.Run("survives the agent", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Runtime.AddImage("slow:1", fake.Behaviour{IgnoreTERM: true})
			p := w.Make(nodetest.Pod("web", within(time.Minute), nodetest.Grace(20*time.Second), func(p *corev1.Pod) { p.Spec.Containers[0].Image = "slow:1" }))
			w.Advance(30 * time.Second)
			w.RestartAgent()
			w.Advance(28 * time.Second)
			w.Want("web", "Running, c#0 running ready")
			w.Advance(2 * time.Second)
			if got := w.Runtime.Signals(id(p, 0)); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
				t.Errorf("signals %v", got)
			}
			w.Advance(10 * time.Second)
			w.Want("web", "Running, c#0 running ready")
			w.RestartAgent()
			w.Want("web", "Running, c#0 running ready")
			w.Advance(9 * time.Second)
			w.Want("web", "Running, c#0 running ready")
			w.Advance(time.Second)
			exceeded(w, "Failed, c#0 137 Error")
		})
	})
	t.Run("while init containers run", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			setups(w, "a")
			w.Runtime.AddImage("b:1", fake.Behaviour{IgnoreTERM: true})
			w.Make(nodetest.Pod("web", within(15*time.Second), after("a", "b"), nodetest.Grace(time.Second)))
			w.Advance(17 * time.Second)
			exceeded(w, "Failed, c#0 PodInitializing")
			wantSteps(w, "web", "Failed, a#0 0 Completed ready, b#0 137 Error, c#0 PodInitializing, False ContainersNotInitialized")
		})
	})
	t.Run("set later", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Make(nodetest.Pod("web"))
			w.Advance(time.Minute)
			w.UpdatePod("web", within(70*time.Second))
			w.Want("web", "Running, c#0 running ready")
			w.UpdatePod("web", within(65*time.Second))
			w.Advance(6 * time.Second)
			exceeded(w, "Failed, c#0 0 Completed")
			if got := w.Events("web"); got != "Created=1 DeadlineExceeded=1 Killing=1 Pulled=1 Started=1" {
				t.Errorf("events: %s", got)
			}
		})
	})
	t.Run("its image never comes", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Make(nodetest.Pod("web", within(15*time.Second), func(p *corev1.Pod) { p.Spec.Containers[0].Image = "late:1" }))
			w.Advance(16 * time.Second)
			exceeded(w, "Failed, c#0 137 ContainerStatusUnknown")
		})
	})
}

func TestASidecarThatHasToStartFirst(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		setups(w, "side", "a")
		var up atomic.Bool
		w.Probes.Answer(func(pod.Target, *corev1.Probe) pod.Answer {
			if up.Load() {
				return pod.Answer{Outcome: pod.Passed}
			}
			return pod.Answer{Outcome: pod.Failed}
		})
		w.Make(nodetest.Pod("web", after("side", "a"), func(p *corev1.Pod) {
			p.Spec.InitContainers[0].StartupProbe = &corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/up", Port: intstr.FromInt32(80)}},
				PeriodSeconds: 1, FailureThreshold: 30, SuccessThreshold: 1, TimeoutSeconds: 1,
			}
		}))
		w.Advance(5 * time.Second)
		wantSteps(w, "web", "Pending, side#0 runs, a#0 PodInitializing, c#0 PodInitializing, False ContainersNotInitialized")
		up.Store(true)
		w.Advance(2 * time.Second)
		wantSteps(w, "web", "Pending, side#0 runs ready, a#0 runs, c#0 PodInitializing, False ContainersNotInitialized")
	})
}
