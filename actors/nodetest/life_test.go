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
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/troupe-sh/troupe/actors/nodetest"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/pod"
)

func id(p *corev1.Pod, attempt uint32) string { return pod.ContainerID(p.UID, "c", attempt) }

func condition(p *corev1.Pod, kind corev1.PodConditionType) string {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return strings.TrimSuffix(string(c.Status)+" "+c.Reason, " ")
		}
	}
	return "none"
}

func TestAPodRuns(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		p := w.Make(nodetest.Pod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(C)"}}
			p.Spec.Containers[0].Args = []string{"--b=$(B)"}
		}))
		w.Want("web", "Running, c#0 running ready")
		s := w.Pod("web").Status
		if s.PodIP == "" || s.PodIPs[0].IP != s.PodIP || s.HostIP != "192.0.2.1" || s.HostIPs[0].IP != s.HostIP || s.StartTime == nil {
			t.Errorf("addresses and start: %+v", s)
		}
		if s.QOSClass != corev1.PodQOSBurstable || s.ObservedGeneration != w.Pod("web").Generation {
			t.Errorf("class %s, observed generation %d of %d", s.QOSClass, s.ObservedGeneration, w.Pod("web").Generation)
		}
		c := s.ContainerStatuses[0]
		if c.ContainerID != "containerd://"+id(p, 0) || c.Image != nodetest.Image || !strings.HasPrefix(c.ImageID, "sha256:") || !*c.Started {
			t.Errorf("container: %+v", c)
		}
		for _, kind := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
			if got := condition(w.Pod("web"), kind); got != "True" {
				t.Errorf("%s is %s", kind, got)
			}
		}
		if got := w.Events("web"); got != "Created=1 Pulled=1 Started=1" {
			t.Errorf("events: %s", got)
		}
		spec, _ := w.Runtime.Spec(id(p, 0))
		if !slices.Equal(spec.Env, []string{"HOSTNAME=web", "A=1", "B=1$(C)"}) || !slices.Equal(spec.Args, []string{"--b=1$(C)"}) {
			t.Errorf("env %q, args %q", spec.Env, spec.Args)
		}
		if spec.Resources.Memory != 1<<30 || spec.LogPath != "/logs/default_web_"+string(p.UID)+"/c/0.log" || len(spec.Mounts) != 1 {
			t.Errorf("spec %+v", spec)
		}
	})
}

func TestRestartsWithBackoff(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		p := w.Make(nodetest.Pod("web"))
		ip := w.Pod("web").Status.PodIP
		attempt := uint32(0)
		// The first at once, then 10 s doubling to 5 minutes.
		for _, delay := range []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 300 * time.Second, 300 * time.Second} {
			w.Advance(time.Second)
			w.Runtime.Exit(id(p, attempt), 3)
			if w.Advance(0); delay > 0 {
				w.Want("web", fmt.Sprintf("Running, c#%d CrashLoopBackOff (3 Error)", attempt))
				if got, want := w.Pod("web").Status.ContainerStatuses[0].State.Waiting.Message,
					fmt.Sprintf("back-off %s restarting failed container=c pod=web_default(%s)", delay, p.UID); got != want {
					t.Errorf("message %q, want %q", got, want)
				}
				if got := condition(w.Pod("web"), corev1.PodReady); got != "False ContainersNotReady" {
					t.Errorf("Ready is %s", got)
				}
				w.Advance(delay - 100*time.Millisecond)
				w.Want("web", fmt.Sprintf("Running, c#%d CrashLoopBackOff (3 Error)", attempt))
				w.Advance(100 * time.Millisecond)
			}
			attempt++
			w.Want("web", fmt.Sprintf("Running, c#%d running ready (3 Error)", attempt))
		}
		if now := w.Pod("web"); now.UID != p.UID || now.Status.PodIP != ip {
			t.Errorf("UID %s and address %s, want %s and %s", now.UID, now.Status.PodIP, p.UID, ip)
		}
		// 10 minutes of running begin anew.
		w.Advance(10 * time.Minute)
		w.Runtime.Exit(id(p, attempt), 0)
		w.Advance(0)
		w.Want("web", fmt.Sprintf("Running, c#%d running ready (0 Completed)", attempt+1))
		// Of the ended ones the last is kept.
		if all := w.Containers(); len(all) != 2 || all[0].Attempt != attempt || all[1].Attempt != attempt+1 {
			t.Errorf("containers: %+v", all)
		}
		if got := w.Disk.Removed(); len(got) != int(attempt) || !strings.HasSuffix(got[0], "/c/0.log") {
			t.Errorf("removed logs: %q", got)
		}
	})
}

func TestAStartWhoseAnswerIsLostCounts(t *testing.T) {
	for _, method := range []string{"Create", "Start", "Container"} {
		t.Run(method, func(t *testing.T) {
			nodetest.Run(t, func(w *nodetest.World) {
				w.Runtime.Inject(fake.Fault{Method: method, Err: errors.New("connection reset"), Done: true})
				w.Make(nodetest.Pod("web"))
				w.Advance(time.Minute)
				w.Want("web", "Running, c#0 running ready")
				if all := w.Containers(); len(all) != 1 {
					t.Errorf("containers: %+v", all)
				}
			})
		})
	}
	t.Run("one that was not made is made again", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Runtime.Inject(fake.Fault{Method: "Start", Err: errors.New("no space left on device")})
			p := w.Make(nodetest.Pod("web"))
			w.Advance(time.Minute)
			w.Want("web", "Running, c#1 running ready (128 StartError)")
			if c, err := w.Runtime.Container(t.Context(), id(p, 0)); err != nil || c.State != container.Created {
				t.Errorf("the first: %+v, %v", c, err)
			}
		})
	})
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		policy corev1.RestartPolicy
		code   uint32
		oom    bool
		want   string
		ready  string
	}{
		{corev1.RestartPolicyNever, 0, false, "Succeeded, c#0 0 Completed", "False PodCompleted"},
		{corev1.RestartPolicyNever, 2, false, "Failed, c#0 2 Error", "False PodFailed"},
		{corev1.RestartPolicyNever, 0, true, "Failed, c#0 137 OOMKilled", "False PodFailed"},
		{corev1.RestartPolicyOnFailure, 0, false, "Succeeded, c#0 0 Completed", "False PodCompleted"},
		{corev1.RestartPolicyOnFailure, 2, false, "Running, c#1 CrashLoopBackOff (2 Error)", "False ContainersNotReady"},
		{corev1.RestartPolicyAlways, 0, false, "Running, c#1 CrashLoopBackOff (0 Completed)", "False ContainersNotReady"},
	} {
		t.Run(fmt.Sprintf("%s, exit %d, oom %v", c.policy, c.code, c.oom), func(t *testing.T) {
			nodetest.Run(t, func(w *nodetest.World) {
				w.Runtime.AddImage("job:1", fake.Behaviour{Exits: true, ExitAfter: time.Second, ExitCode: c.code, OOM: c.oom, Message: "that was it"})
				p := w.Make(nodetest.Pod("job", nodetest.Policy(c.policy), func(p *corev1.Pod) { p.Spec.Containers[0].Image = "job:1" }))
				w.Want("job", "Running, c#0 running ready")
				w.Advance(5 * time.Second)
				w.Want("job", c.want)
				if got := condition(w.Pod("job"), corev1.PodReady); got != c.ready {
					t.Errorf("Ready is %s, want %s", got, c.ready)
				}
				s := w.Pod("job").Status.ContainerStatuses[0]
				end := s.State.Terminated
				if end == nil {
					end = s.LastTerminationState.Terminated
				}
				if end.Message != "that was it" || end.FinishedAt.Sub(end.StartedAt.Time) != time.Second {
					t.Errorf("end: %+v", end)
				}
				// What has ended for good holds nothing but its logs.
				if over := strings.HasPrefix(c.want, "S") || strings.HasPrefix(c.want, "F"); over != (len(w.Containers()) == 0) {
					t.Errorf("containers: %v", w.Containers())
				}
				w.Disk.PutLog(p.UID)
				w.Advance(time.Minute)
				w.RestartAgent()
				w.Advance(time.Minute)
				if files, _ := w.Disk.Pods(t.Context()); len(files) != 1 {
					t.Errorf("its logs are gone: %v", files)
				}
				w.DeletePod("job", 0)
				w.Advance(time.Minute)
				w.Nothing()
			})
		})
	}
}

func TestDeletion(t *testing.T) {
	const slow = "slow:1"
	deaf := func(w *nodetest.World) { w.Runtime.AddImage(slow, fake.Behaviour{IgnoreTERM: true}) }
	image := func(p *corev1.Pod) { p.Spec.Containers[0].Image = slow }
	t.Run("the signal is enough", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Runtime.AddImage(slow, fake.Behaviour{TermAfter: 3 * time.Second, StopSignal: syscall.SIGQUIT})
			p := w.Make(nodetest.Pod("web", image))
			w.DeletePod("web", -1)
			if got := w.Runtime.Signals(id(p, 0)); !slices.Equal(got, []syscall.Signal{syscall.SIGQUIT}) {
				t.Errorf("signals %v, want the image's own", got)
			}
			w.Want("web", "Running, c#0 running ready")
			w.Advance(3 * time.Second)
			w.Want("web", "gone")
			if got := w.Events("web"); got != "Created=1 Killing=1 Pulled=1 Started=1" {
				t.Errorf("events: %s", got)
			}
			w.Nothing()
		})
	})
	t.Run("grace runs out", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			deaf(w)
			p := w.Make(nodetest.Pod("web", image, nodetest.Grace(20*time.Second)))
			w.DeletePod("web", -1)
			w.Advance(20*time.Second - time.Second/2)
			w.Want("web", "Running, c#0 running ready")
			if got := w.Runtime.Signals(id(p, 0)); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
				t.Errorf("signals %v", got)
			}
			w.Advance(time.Second / 2)
			w.Want("web", "gone")
			w.Nothing()
		})
	})
	t.Run("a shorter grace shortens it", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			deaf(w)
			p := w.Make(nodetest.Pod("web", image, nodetest.Grace(time.Hour)))
			w.DeletePod("web", -1)
			w.Advance(10 * time.Second)
			w.DeletePod("web", 5*time.Second)
			if got := w.Runtime.Signals(id(p, 0)); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
				t.Errorf("signals %v, want one", got)
			}
			w.Advance(6 * time.Second)
			w.Want("web", "gone")
			w.Nothing()
		})
	})
	t.Run("by force", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			deaf(w)
			w.Make(nodetest.Pod("web", image))
			w.DeletePod("web", 0)
			w.Want("web", "gone")
			w.Nothing()
		})
	})
	t.Run("one of its containers has ended by itself", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			deaf(w)
			p := w.Make(nodetest.Pod("web", nodetest.Policy(corev1.RestartPolicyNever), func(p *corev1.Pod) {
				p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0])
				p.Spec.Containers[1].Name, p.Spec.Containers[1].Image = "deaf", slow
			}))
			w.Runtime.Exit(id(p, 0), 3)
			w.DeletePod("web", 5*time.Second)
			w.Want("web", "Running, c#0 3 Error, deaf#0 running ready")
			w.Advance(5 * time.Second)
			w.Want("web", "gone")
			w.Nothing()
		})
	})
	t.Run("while it starts", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Make(nodetest.Pod("web", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "absent:1" }))
			w.DeletePod("web", -1)
			w.Want("web", "gone")
			w.Nothing()
		})
	})
	t.Run("in its back-off", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			p := w.Make(nodetest.Pod("web"))
			w.Runtime.Exit(id(p, 0), 1)
			w.Advance(0)
			w.Runtime.Exit(id(p, 1), 1)
			w.Advance(0)
			w.DeletePod("web", -1)
			w.Want("web", "gone")
			w.Nothing()
		})
	})
	t.Run("with a finalizer", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			p := w.Make(nodetest.Pod("web", nodetest.Finalizer("example.com/hold")))
			w.DeletePod("web", -1)
			w.Advance(time.Minute)
			w.Want("web", "Succeeded, c#0 0 Completed")
			if len(w.Containers()) > 0 {
				t.Errorf("containers: %v", w.Containers())
			}
			w.RemoveFinalizers(p)
			w.Advance(time.Second)
			w.Want("web", "gone")
			w.Nothing()
		})
	})
}

func TestImages(t *testing.T) {
	absent := func(policy corev1.PullPolicy) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = "late:1", policy
		}
	}
	t.Run("comes by an import", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Make(nodetest.Pod("web", absent(corev1.PullIfNotPresent)))
			w.Want("web", "Pending, c#0 ErrImagePull")
			w.Advance(2 * time.Second)
			w.Want("web", "Pending, c#0 ImagePullBackOff")
			if got := w.Pod("web").Status.ContainerStatuses[0].State.Waiting.Message; !strings.HasPrefix(got, `Back-off pulling image "late:1": ErrImagePull: `) || !strings.Contains(got, "troupe image load") {
				t.Errorf("message %q", got)
			}
			w.Advance(8 * time.Second)
			w.Want("web", "Pending, c#0 ErrImagePull")
			if got := w.Events("web"); got != "BackOff=1 Failed=5 Pulling=2" {
				t.Errorf("events: %s", got)
			}
			w.Runtime.AddImage("late:1", fake.Behaviour{})
			w.ImagesLoaded()
			w.Want("web", "Running, c#0 running ready")
		})
	})
	t.Run("must never be pulled", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Make(nodetest.Pod("web", absent(corev1.PullNever)))
			w.Want("web", "Pending, c#0 ErrImageNeverPull")
			if got := w.Pod("web").Status.ContainerStatuses[0].State.Waiting.Message; got != `Container image "late:1" is not present with pull policy of Never` {
				t.Errorf("message %q", got)
			}
			w.Runtime.AddImage("late:1", fake.Behaviour{})
			w.ImagesLoaded()
			w.Want("web", "Running, c#0 running ready")
		})
	})
}

func TestWhatCannotStart(t *testing.T) {
	broken := errors.New(`exec: "nosuch": executable file not found in $PATH`)
	t.Run("its command does not exist", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Runtime.AddImage("bad:1", fake.Behaviour{FailStart: fmt.Errorf("%w: %w", broken, container.ErrInvalid)})
			p := w.Make(nodetest.Pod("web", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "bad:1" }))
			w.Want("web", "Running, c#1 RunContainerError (128 StartError)")
			w.Advance(2 * time.Second)
			w.Want("web", "Running, c#1 CrashLoopBackOff (128 StartError)")
			w.Advance(8 * time.Second)
			w.Want("web", "Running, c#2 RunContainerError (128 StartError)")
			if len(w.Containers()) > 2 {
				t.Errorf("containers pile up: %v", w.Containers())
			}
			_ = p
		})
	})
	t.Run("its command does not exist, and it must not restart", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Runtime.AddImage("bad:1", fake.Behaviour{FailStart: fmt.Errorf("%w: %w", broken, container.ErrInvalid)})
			w.Make(nodetest.Pod("web", nodetest.Policy(corev1.RestartPolicyNever), func(p *corev1.Pod) { p.Spec.Containers[0].Image = "bad:1" }))
			w.Want("web", "Failed, c#0 128 StartError")
		})
	})
	t.Run("it cannot be made", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Runtime.Inject(fake.Fault{Method: "Create", Err: errors.New("no space left on device")})
			w.Make(nodetest.Pod("web"))
			w.Want("web", "Pending, c#0 CreateContainerError")
			if got := w.Pod("web").Status.ContainerStatuses[0].State.Waiting.Message; got != "no space left on device" {
				t.Errorf("message %q", got)
			}
			w.Advance(10 * time.Second)
			w.Want("web", "Running, c#0 running ready")
		})
	})
	t.Run("it would be root", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Make(nodetest.Pod("web", func(p *corev1.Pod) {
				yes := true
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes}
			}))
			w.Want("web", "Pending, c#0 CreateContainerConfigError")
		})
	})
	t.Run("its volumes cannot be mounted", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Volumes.Fail(2)
			w.Make(nodetest.Pod("web"))
			w.Want("web", "Pending, c#0 ContainerCreating")
			w.Advance(3 * time.Second)
			w.Want("web", "Running, c#0 running ready")
			if got := w.Events("web"); got != "Created=1 FailedMount=2 Pulled=1 Started=1" {
				t.Errorf("events: %s", got)
			}
		})
	})
	t.Run("its sandbox cannot be made", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Runtime.Inject(fake.Fault{Method: "RunSandbox", Err: errors.New("no such module")})
			w.Make(nodetest.Pod("web"))
			w.Want("web", "Pending, c#0 ContainerCreating")
			w.Advance(time.Second)
			w.Want("web", "Running, c#0 running ready")
			if got := w.Events("web"); got != "Created=1 FailedCreatePodSandBox=1 Pulled=1 Started=1" {
				t.Errorf("events: %s", got)
			}
		})
	})
}

func TestSeveralContainers(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		p := w.Make(nodetest.Pod("web", nodetest.Policy(corev1.RestartPolicyNever), func(p *corev1.Pod) {
			second := p.Spec.Containers[0]
			second.Name = "b"
			p.Spec.Containers = append(p.Spec.Containers, second)
		}))
		w.Want("web", "Running, b#0 running ready, c#0 running ready")
		w.Runtime.Exit(id(p, 0), 0)
		w.Advance(0)
		w.Want("web", "Running, b#0 running ready, c#0 0 Completed")
		if got := w.Pod("web").Status.Conditions; condition(w.Pod("web"), corev1.PodReady) != "False ContainersNotReady" {
			t.Errorf("conditions: %+v", got)
		}
		w.Runtime.Exit(pod.ContainerID(p.UID, "b", 0), 1)
		w.Advance(0)
		w.Want("web", "Failed, b#0 1 Error, c#0 0 Completed")
	})
}

func TestAChangedImageRestartsTheContainer(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		w.Runtime.AddImage("app:2", fake.Behaviour{})
		p := w.Make(nodetest.Pod("web"))
		w.UpdatePod("web", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "app:2" })
		w.Want("web", "Running, c#1 running ready (0 Completed)")
		if s, _ := w.Runtime.Spec(id(p, 1)); s.Image != "app:2" {
			t.Errorf("image %q", s.Image)
		}
	})
}
