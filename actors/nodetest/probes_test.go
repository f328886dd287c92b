package nodetest_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/actors/nodetest"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// probe asks the container c for a path, each 10 s.
func probe(path string, edit ...func(*corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(80)}}}
	for _, e := range edit {
		e(p)
	}
	return p
}

func probed(startup, liveness, readiness *corev1.Probe) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.StartupProbe, c.LivenessProbe, c.ReadinessProbe = startup, liveness, readiness
	}
}

// health says which paths fail.
type health struct {
	mu   sync.Mutex
	sick map[string]bool
}

func ask(w *nodetest.World, sick ...string) *health {
	h := &health{}
	h.set(sick...)
	w.Probes.Answer(func(_ pod.Target, p *corev1.Probe) pod.Answer {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.sick[p.HTTPGet.Path] {
			return pod.Answer{Outcome: pod.Failed, Output: "HTTP probe failed with statuscode: 500"}
		}
		return pod.Answer{Outcome: pod.Passed}
	})
	return h
}

func (h *health) set(sick ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sick = map[string]bool{}
	for _, path := range sick {
		h.sick[path] = true
	}
}

// messages are those of a pod's events with a reason, sorted.
func messages(w *nodetest.World, name, reason string) string {
	var all []string
	for _, e := range controltest.List[*corev1.Event](w.World, "events", "default") {
		if e.InvolvedObject.Name == name && e.Reason == reason {
			all = append(all, e.Message)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

func TestReadinessComesAndGoes(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		h := ask(w, "/ready")
		p := w.Make(nodetest.Pod("web", probed(nil, nil, probe("/ready"))))
		w.Want("web", "Running, c#0 running")
		if s := w.Pod("web").Status.ContainerStatuses[0]; !*s.Started {
			t.Error("without a start-up probe it has started")
		}
		for _, kind := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady} {
			if got := condition(w.Pod("web"), kind); got != "False ContainersNotReady" {
				t.Errorf("%s is %s", kind, got)
			}
		}
		w.Advance(time.Minute)
		w.Want("web", "Running, c#0 running")
		if got := messages(w, "web", "Unhealthy"); got != "Readiness probe failed: HTTP probe failed with statuscode: 500" {
			t.Errorf("events: %s", got)
		}
		if got, want := w.Probes.Asked()[0], id(p, 0)+"/ready@"+w.Pod("web").Status.PodIP; got != want {
			t.Errorf("asked %s, want %s", got, want)
		}

		h.set()
		w.Advance(10 * time.Second)
		w.Want("web", "Running, c#0 running ready")
		if got := condition(w.Pod("web"), corev1.PodReady); got != "True" {
			t.Errorf("Ready is %s", got)
		}
		h.set("/ready")
		w.Advance(20 * time.Second)
		w.Want("web", "Running, c#0 running ready") // twice is not three times
		w.Advance(10 * time.Second)
		w.Want("web", "Running, c#0 running")
		h.set()
		w.Advance(10 * time.Second)

		// Another container has to answer for itself.
		h.set("/ready")
		w.Runtime.Exit(id(p, 0), 1)
		w.Advance(time.Second)
		w.Want("web", "Running, c#1 running (1 Error)")
		if got := w.Events("web"); !strings.Contains(got, "Started=2") || strings.Contains(got, "Killing") {
			t.Errorf("events: %s", got)
		}
	})
}

func TestLiveness(t *testing.T) {
	seconds := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		name    string
		policy  corev1.RestartPolicy
		probe   *int64        // its grace
		dies    time.Duration // when, after the signal
		becomes string
		killing string
	}{
		{"restarted", corev1.RestartPolicyAlways, nil, 30 * time.Second, "Running, c#1 running ready (137 Error)", "Container c failed liveness probe, will be restarted"},
		{"within the probe's grace", corev1.RestartPolicyAlways, seconds(5), 5 * time.Second, "Running, c#1 running ready (137 Error)", "Container c failed liveness probe, will be restarted"},
		{"on failure", corev1.RestartPolicyOnFailure, seconds(5), 5 * time.Second, "Running, c#1 running ready (137 Error)", "Container c failed liveness probe, will be restarted"},
		{"never", corev1.RestartPolicyNever, seconds(5), 5 * time.Second, "Failed, c#0 137 Error", "Container c failed liveness probe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nodetest.Run(t, func(w *nodetest.World) {
				w.Runtime.AddImage("deaf:1", fake.Behaviour{IgnoreTERM: true})
				h := ask(w)
				p := w.Make(nodetest.Pod("web", nodetest.Policy(c.policy), func(p *corev1.Pod) { p.Spec.Containers[0].Image = "deaf:1" },
					probed(nil, probe("/live", func(p *corev1.Probe) { p.TerminationGracePeriodSeconds = c.probe }), nil)))
				w.Want("web", "Running, c#0 running ready")
				w.Advance(time.Minute)
				h.set("/live")
				w.Advance(29 * time.Second)
				w.Want("web", "Running, c#0 running ready")
				if got := w.Runtime.Signals(id(p, 0)); len(got) > 0 {
					t.Fatalf("signals %v after two failures", got)
				}
				w.Advance(time.Second)
				if got := w.Runtime.Signals(id(p, 0)); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
					t.Errorf("signals %v after three", got)
				}
				asked := len(w.Probes.Asked())
				w.Advance(c.dies - time.Second)
				if got := w.Probes.Asked(); len(got) > 0 || asked == 0 {
					t.Errorf("asked %q while it is being ended", got)
				}
				h.set()
				w.Advance(time.Second)
				w.Want("web", c.becomes)
				if got := messages(w, "web", "Killing"); got != c.killing {
					t.Errorf("killing: %s", got)
				}
				if got := messages(w, "web", "Unhealthy"); got != "Liveness probe failed: HTTP probe failed with statuscode: 500" {
					t.Errorf("unhealthy: %s", got)
				}
			})
		})
	}
	t.Run("one that ends well on its signal runs again all the same", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			h := ask(w, "/live")
			w.Make(nodetest.Pod("web", nodetest.Policy(corev1.RestartPolicyOnFailure), probed(nil, probe("/live"), nil)))
			w.Advance(30 * time.Second)
			h.set()
			w.Want("web", "Running, c#1 running ready (0 Completed)")
			w.Advance(time.Hour)
			w.Want("web", "Running, c#1 running ready (0 Completed)")
		})
	})
	t.Run("again and again is a crash loop", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			ask(w, "/live")
			w.Make(nodetest.Pod("web", probed(nil, probe("/live"), nil)))
			w.Advance(30 * time.Second)
			w.Want("web", "Running, c#1 running ready (0 Completed)")
			w.Advance(30 * time.Second)
			w.Want("web", "Running, c#1 CrashLoopBackOff (0 Completed)")
		})
	})
}

func TestStartup(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		h := ask(w, "/start")
		often := func(p *corev1.Probe) { p.PeriodSeconds, p.FailureThreshold = 1, 60 }
		w.Make(nodetest.Pod("web", probed(probe("/start", often), probe("/live"), probe("/ready"))))
		w.Advance(30 * time.Second)
		w.Want("web", "Running, c#0 running")
		if s := w.Pod("web").Status.ContainerStatuses[0]; *s.Started || s.Ready {
			t.Errorf("status %+v", s)
		}
		for _, line := range w.Probes.Asked() {
			if !strings.Contains(line, "/start") {
				t.Fatalf("asked %s before it has started", line)
			}
		}
		h.set("/ready")
		w.Advance(time.Second)
		w.Want("web", "Running, c#0 running")
		if s := w.Pod("web").Status.ContainerStatuses[0]; !*s.Started || s.Ready {
			t.Errorf("status %+v", s)
		}
		h.set("/start") // which is not asked any more
		w.Advance(5 * time.Minute)
		w.Want("web", "Running, c#0 running ready")
	})
	t.Run("one that does not start is killed", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			ask(w, "/start")
			grace := int64(2)
			w.Make(nodetest.Pod("web", probed(probe("/start", func(p *corev1.Probe) { p.TerminationGracePeriodSeconds = &grace }), probe("/live"), nil)))
			w.Advance(29 * time.Second)
			w.Want("web", "Running, c#0 running")
			w.Advance(time.Second)
			w.Want("web", "Running, c#1 running (0 Completed)")
			if got := messages(w, "web", "Killing"); got != "Container c failed startup probe, will be restarted" {
				t.Errorf("killing: %s", got)
			}
		})
	})
}

// TestProbesOfWhatIsDeleted: whether it is ready is still asked, since others
// may send it work; nothing kills it before its time.
func TestProbesOfWhatIsDeleted(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		w.Runtime.AddImage("deaf:1", fake.Behaviour{IgnoreTERM: true})
		h := ask(w)
		p := w.Make(nodetest.Pod("web", nodetest.Grace(time.Minute), func(p *corev1.Pod) { p.Spec.Containers[0].Image = "deaf:1" },
			probed(nil, probe("/live"), probe("/ready"))))
		w.Advance(time.Minute)
		w.DeletePod("web", -1)
		h.set("/live", "/ready")
		w.Probes.Asked()
		w.Advance(45 * time.Second)
		w.Want("web", "Running, c#0 running")
		for _, line := range w.Probes.Asked() {
			if !strings.Contains(line, "/ready") {
				t.Errorf("asked %s", line)
			}
		}
		if got := w.Runtime.Signals(id(p, 0)); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
			t.Errorf("signals %v", got)
		}
		w.Advance(30 * time.Second)
		w.Want("web", "gone")
		w.Probes.Asked()
		w.Advance(time.Hour)
		if got := w.Probes.Asked(); len(got) > 0 {
			t.Errorf("asked %q after its end", got)
		}
		w.Nothing()
	})
}

// TestReadyPodsStayReadyWhenTheAgentRestarts, until a probe says otherwise; and
// so for every actor on the way.
func TestReadyPodsStayReadyWhenTheAgentRestarts(t *testing.T) {
	often := func(p *corev1.Probe) { p.PeriodSeconds = 5 }
	all := probed(probe("/start", often), probe("/live", often), probe("/ready", often))
	for _, restart := range []string{"agent", "", "/c", "/c.startup", "/c.liveness", "/c.readiness"} {
		t.Run(restart, func(t *testing.T) {
			nodetest.Run(t, func(w *nodetest.World) {
				h := ask(w)
				p := w.Make(nodetest.Pod("web", all))
				unready := w.Make(nodetest.Pod("unready", probed(nil, nil, probe("/other"))))
				h.set("/other")
				w.Advance(time.Minute)
				w.Want("web", "Running, c#0 running ready")
				before, other := w.Pod("web").Status, w.Pod("unready").Status
				restarted := func() {
					if restart == "agent" {
						w.RestartAgent()
					} else {
						w.Crash(nodetest.Path(p) + restart)
					}
				}
				restarted()
				w.Advance(time.Minute)
				for name, was := range map[string]corev1.PodStatus{"web": before, "unready": other} {
					now := w.Pod(name).Status
					for i := range now.Conditions {
						if now.Conditions[i] != was.Conditions[i] {
							t.Errorf("%s: %+v, was %+v", name, now.Conditions[i], was.Conditions[i])
						}
					}
				}
				if got := condition(w.Pod("unready"), corev1.PodReady); got != "False ContainersNotReady" {
					t.Errorf("the other one is Ready: %s, %s", got, unready.UID)
				}
				for _, path := range []string{"/live", "/ready"} {
					if !slices.ContainsFunc(w.Probes.Asked(), func(line string) bool { return strings.HasPrefix(line, id(p, 0)+path) }) && path == "/live" {
						t.Errorf("%s is not asked any more", path)
					}
				}
				h.set("/ready")
				restarted()
				w.Advance(30 * time.Second)
				w.Want("web", "Running, c#0 running")
				h.set("/live")
				w.Advance(time.Minute)
				if c := w.Pod("web").Status.ContainerStatuses[0]; c.RestartCount == 0 {
					t.Errorf("nothing was killed: %+v", c)
				}
			})
		})
	}
}

// TestAStartThatNobodyHeardOf: a worker that fails at the moment in which its
// container has started is told again.
func TestAStartThatNobodyHeardOf(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		h := ask(w, "/start")
		often := func(p *corev1.Probe) { p.PeriodSeconds, p.FailureThreshold = 1, 600 }
		p := w.Make(nodetest.Pod("web", probed(probe("/start", often), nil, nil)))
		w.Advance(10 * time.Second)
		for range 3 {
			w.Crash(nodetest.Path(p) + "/c")
		}
		h.set()
		w.Advance(5 * time.Second)
		w.Want("web", "Running, c#0 running ready")
	})
}

func TestWhatCannotBeAskedCountsForNothing(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		w.Probes.Answer(func(pod.Target, *corev1.Probe) pod.Answer {
			return pod.Answer{Outcome: pod.Unknown, Err: errors.New("invalid port number: -1")}
		})
		w.Make(nodetest.Pod("web", probed(nil, probe("/live"), probe("/ready"))))
		w.Advance(5 * time.Minute)
		w.Want("web", "Running, c#0 running")
		if got := messages(w, "web", "Unhealthy"); got != "Liveness probe errored and resulted in unknown state: invalid port number: -1; "+
			"Readiness probe errored and resulted in unknown state: invalid port number: -1" {
			t.Errorf("events: %s", got)
		}
	})
}
