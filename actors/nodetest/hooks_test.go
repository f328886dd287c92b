package nodetest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/troupe-sh/troupe/actors/nodetest"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/pod"
)

func hooked(path ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		l := &corev1.Lifecycle{}
		for _, path := range path {
			h := &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(80)}}
			if path == "/start" {
				l.PostStart = h
			} else {
				l.PreStop = h
			}
		}
		p.Spec.Containers[0].Lifecycle = l
	}
}

// lasting is a hook that takes d, unless it is given up.
func lasting(d time.Duration, err error) func(context.Context, pod.Target, *corev1.LifecycleHandler) error {
	return func(ctx context.Context, _ pod.Target, _ *corev1.LifecycleHandler) error {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
		return err
	}
}

func TestPostStart(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		w.Probes.OnHook(lasting(5*time.Second, nil))
		p := w.Make(nodetest.Pod("web", hooked("/start")))
		w.Advance(4 * time.Second)
		w.Want("web", "Pending, c#0 ContainerCreating")
		w.Advance(time.Second)
		w.Want("web", "Running, c#0 running ready")
		if got, want := w.Probes.Hooks(), []string{id(p, 0) + "/start@" + w.Pod("web").Status.PodIP}; !slices.Equal(got, want) {
			t.Errorf("hooks %q, want %q", got, want)
		}
		w.RestartAgent()
		w.Advance(time.Minute)
		w.Want("web", "Running, c#0 running ready")
		if got := w.Probes.Hooks(); len(got) > 0 {
			t.Errorf("hooks %q of one that is adopted", got)
		}
	})
	t.Run("one that fails ends the container", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Probes.OnHook(lasting(0, errors.New("HTTP lifecycle hook (/start) failed")))
			p := w.Make(nodetest.Pod("web", hooked("/start")))
			w.Want("web", "Running, c#1 PostStartHookError (0 Completed)")
			if got := w.Pod("web").Status.ContainerStatuses[0].State.Waiting.Message; got != "HTTP lifecycle hook (/start) failed" {
				t.Errorf("message %q", got)
			}
			w.Advance(3 * time.Second)
			w.Want("web", "Running, c#1 CrashLoopBackOff (0 Completed)")
			w.Probes.OnHook(nil)
			w.Advance(10 * time.Second)
			w.Want("web", "Running, c#2 running ready (0 Completed)")
			if got := w.Runtime.Signals(id(p, 1)); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
				t.Errorf("signals %v", got)
			}
			if got := messages(w, "web", "Killing") + "; " + messages(w, "web", "FailedPostStartHook"); got != "FailedPostStartHook; PostStartHook failed" {
				t.Errorf("events %s", got)
			}
		})
	})
	t.Run("the container ends meanwhile", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Probes.OnHook(lasting(time.Hour, errors.New("it is late")))
			p := w.Make(nodetest.Pod("web", hooked("/start")))
			w.Advance(time.Second)
			w.Runtime.Exit(id(p, 0), 3)
			w.Probes.OnHook(nil)
			w.Advance(0)
			w.Want("web", "Running, c#1 running ready (3 Error)")
			w.Advance(2 * time.Hour)
			w.Want("web", "Running, c#1 running ready (3 Error)")
		})
	})
}

func TestPreStop(t *testing.T) {
	term := []syscall.Signal{syscall.SIGTERM}
	t.Run("before the signal", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Probes.OnHook(lasting(5*time.Second, nil))
			p := w.Make(nodetest.Pod("web", hooked("/stop"), nodetest.Finalizer("keep.example/it")))
			w.DeletePod("web", -1)
			w.Advance(4 * time.Second)
			if got := w.Runtime.Signals(id(p, 0)); len(got) > 0 {
				t.Errorf("signals %v while its hook is under way", got)
			}
			if got := messages(w, "web", "Killing"); got != "Stopping container c" {
				t.Errorf("killing: %s", got)
			}
			w.Advance(2 * time.Second)
			w.Want("web", "Succeeded, c#0 0 Completed")
			if got := w.Probes.Hooks(); len(got) != 1 || !strings.HasPrefix(got[0], id(p, 0)+"/stop@10.") {
				t.Errorf("hooks %q", got)
			}
			if got := w.Events("web"); !strings.Contains(got, "Killing=1") || strings.Contains(got, "FailedPreStopHook") {
				t.Errorf("events %s", got)
			}
		})
	})
	t.Run("within the grace", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Runtime.AddImage("deaf:1", fake.Behaviour{IgnoreTERM: true})
			w.Probes.OnHook(lasting(time.Hour, nil))
			p := w.Make(nodetest.Pod("web", hooked("/stop"), nodetest.Grace(10*time.Second), func(p *corev1.Pod) { p.Spec.Containers[0].Image = "deaf:1" }))
			w.DeletePod("web", -1)
			w.Advance(9 * time.Second)
			if got := w.Runtime.Signals(id(p, 0)); len(got) > 0 {
				t.Errorf("signals %v while its hook is under way", got)
			}
			w.Advance(time.Second)
			if got := w.Runtime.Signals(id(p, 0)); !slices.Equal(got, term) {
				t.Errorf("signals %v once its time is over", got)
			}
			w.Advance(1500 * time.Millisecond) // two seconds are left in any case
			if w.Pod("web") == nil {
				t.Error("it is gone already")
			}
			w.Advance(time.Second)
			w.Want("web", "gone")
			w.Nothing()
		})
	})
	t.Run("one that fails", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Probes.OnHook(lasting(0, errors.New("refused")))
			w.Make(nodetest.Pod("web", hooked("/stop")))
			w.DeletePod("web", -1)
			w.Advance(time.Second)
			w.Want("web", "gone")
			if got := messages(w, "web", "FailedPreStopHook"); got != "PreStopHook failed" {
				t.Errorf("events %s", got)
			}
		})
	})
	t.Run("none without a grace", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Make(nodetest.Pod("web", hooked("/stop")))
			w.DeletePod("web", 0)
			w.Advance(time.Second)
			w.Want("web", "gone")
			if got := w.Probes.Hooks(); len(got) > 0 {
				t.Errorf("hooks %q", got)
			}
		})
	})
	t.Run("before a probe's end too", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			h := ask(w, "/live")
			p := w.Make(nodetest.Pod("web", hooked("/stop"), probed(nil, probe("/live"), nil)))
			w.Advance(30 * time.Second)
			h.set()
			w.Want("web", "Running, c#1 running ready (0 Completed)")
			if got := w.Probes.Hooks(); len(got) != 1 || !strings.HasPrefix(got[0], id(p, 0)+"/stop@") {
				t.Errorf("hooks %q", got)
			}
		})
	})
	t.Run("an agent that restarts meanwhile begins it again", func(t *testing.T) {
		nodetest.Run(t, func(w *nodetest.World) {
			w.Probes.OnHook(lasting(5*time.Second, nil))
			p := w.Make(nodetest.Pod("web", hooked("/stop")))
			w.DeletePod("web", -1)
			w.Advance(2 * time.Second)
			w.RestartAgent()
			w.Advance(4 * time.Second)
			if got := w.Runtime.Signals(id(p, 0)); len(got) > 0 {
				t.Errorf("signals %v while its hook is under way", got)
			}
			w.Advance(2 * time.Second)
			w.Want("web", "gone")
			if got := w.Probes.Hooks(); len(got) != 2 {
				t.Errorf("hooks %q", got)
			}
		})
	})
}
