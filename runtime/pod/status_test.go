package pod

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/runtime/container"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 500, time.UTC)

func running(name string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}

func exited(name string, code int32) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
}

func waiting(name string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: ReasonCreating}}}
}

func backingOff(name string, code int32) corev1.ContainerStatus {
	s := waiting(name)
	s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: code}
	return s
}

func of(policy corev1.RestartPolicy, names ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1", Generation: 3},
		Spec:       corev1.PodSpec{RestartPolicy: policy},
	}
	for _, n := range names {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n, Image: "app:1"})
	}
	return p
}

func statuses(all ...corev1.ContainerStatus) map[string]corev1.ContainerStatus {
	m := map[string]corev1.ContainerStatus{}
	for _, s := range all {
		m[s.Name] = s
	}
	return m
}

func TestPhase(t *testing.T) {
	const always, onFailure, never = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	for _, c := range []struct {
		name       string
		policy     corev1.RestartPolicy
		containers []corev1.ContainerStatus
		ending     bool
		ended      bool
		want       corev1.PodPhase
	}{
		{"nothing is known", always, nil, false, false, corev1.PodPending},
		{"one is not known", always, []corev1.ContainerStatus{running("a")}, false, false, corev1.PodPending},
		{"all wait", always, []corev1.ContainerStatus{waiting("a"), waiting("b")}, false, false, corev1.PodPending},
		{"one waits for its first start", always, []corev1.ContainerStatus{running("a"), waiting("b")}, false, false, corev1.PodPending},
		{"all run", always, []corev1.ContainerStatus{running("a"), running("b")}, false, false, corev1.PodRunning},
		{"one runs, one backs off", always, []corev1.ContainerStatus{running("a"), backingOff("b", 1)}, false, false, corev1.PodRunning},
		{"one runs, one has ended", never, []corev1.ContainerStatus{running("a"), exited("b", 1)}, false, false, corev1.PodRunning},
		{"all back off", always, []corev1.ContainerStatus{backingOff("a", 0), backingOff("b", 1)}, false, false, corev1.PodRunning},
		{"all have ended and restart", always, []corev1.ContainerStatus{exited("a", 0), exited("b", 0)}, false, false, corev1.PodRunning},
		{"all have succeeded", onFailure, []corev1.ContainerStatus{exited("a", 0), exited("b", 0)}, false, false, corev1.PodSucceeded},
		{"one failed and restarts", onFailure, []corev1.ContainerStatus{exited("a", 0), exited("b", 1)}, false, false, corev1.PodRunning},
		{"one failed and must not restart", never, []corev1.ContainerStatus{exited("a", 0), exited("b", 1)}, false, false, corev1.PodFailed},
		{"all have succeeded, never to restart", never, []corev1.ContainerStatus{exited("a", 0), exited("b", 0)}, false, false, corev1.PodSucceeded},
		{"deleted, all succeeded", always, []corev1.ContainerStatus{exited("a", 0), exited("b", 0)}, true, true, corev1.PodSucceeded},
		{"deleted, one failed", always, []corev1.ContainerStatus{exited("a", 0), exited("b", 137)}, true, true, corev1.PodFailed},
		{"deleted, one runs still", always, []corev1.ContainerStatus{exited("a", 0), running("b")}, true, false, corev1.PodRunning},
		{"deleted before it began", always, []corev1.ContainerStatus{waiting("a"), waiting("b")}, true, true, corev1.PodFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := of(c.policy, "a", "b")
			s := Status(Facts{Pod: p, Old: &p.Status, Containers: statuses(c.containers...), Ending: c.ending, Ended: c.ended, Now: noon})
			if s.Phase != c.want {
				t.Errorf("phase %s, want %s", s.Phase, c.want)
			}
			if c.ended {
				for _, cs := range s.ContainerStatuses {
					if cs.State.Terminated == nil || cs.Ready {
						t.Errorf("container %s is left open: %+v", cs.Name, cs.State)
					}
				}
			}
		})
	}
	t.Run("a pod never leaves its end", func(t *testing.T) {
		p := of(always, "a")
		p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "why"}
		s := Status(Facts{Pod: p, Old: &p.Status, Containers: statuses(running("a")), Now: noon})
		if s.Phase != corev1.PodFailed || s.Reason != "Evicted" || s.Message != "why" {
			t.Errorf("%s %s %s", s.Phase, s.Reason, s.Message)
		}
	})
}

func TestConditions(t *testing.T) {
	earlier := metav1.NewTime(noon.Add(-time.Hour).Truncate(time.Second))
	for _, c := range []struct {
		name       string
		policy     corev1.RestartPolicy
		containers []corev1.ContainerStatus
		sandbox    bool
		gate       corev1.ConditionStatus
		want       string
	}{
		{"ready", "", []corev1.ContainerStatus{running("a"), running("b")}, true, "", "Sandbox True Init True Ready True Containers True Scheduled True "},
		{
			"starting", "",
			[]corev1.ContainerStatus{running("a"), waiting("b")},
			false, "",
			"Sandbox False Init True Ready False ContainersNotReady containers with unready status: [b] Containers False ContainersNotReady containers with unready status: [b] Scheduled True ",
		},
		{
			"unknown", "", nil, true, "",
			"Sandbox True Init True Ready False ContainersNotReady containers with unknown status: [a b] Containers False ContainersNotReady containers with unknown status: [a b] Scheduled True ",
		},
		{
			"succeeded", corev1.RestartPolicyNever,
			[]corev1.ContainerStatus{exited("a", 0), exited("b", 0)},
			true, "",
			"Sandbox True Init True PodCompleted Ready False PodCompleted Containers False PodCompleted Scheduled True ",
		},
		{
			"failed", corev1.RestartPolicyNever,
			[]corev1.ContainerStatus{exited("a", 0), exited("b", 1)},
			true, "",
			"Sandbox True Init True Ready False PodFailed Containers False PodFailed Scheduled True ",
		},
		{
			"a gate is shut", "",
			[]corev1.ContainerStatus{running("a"), running("b")},
			true, corev1.ConditionFalse,
			"Sandbox True Init True Ready False ReadinessGatesNotReady the status of pod readiness gate \"example.com/gate\" is not \"True\", but False Containers True Scheduled True ",
		},
		{"a gate is open", "", []corev1.ContainerStatus{running("a"), running("b")}, true, corev1.ConditionTrue, "Sandbox True Init True Ready True Containers True Scheduled True "},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := of(c.policy, "a", "b")
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: earlier}}
			if c.gate != "" {
				p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: c.gate, LastTransitionTime: earlier})
			}
			s := Status(Facts{Pod: p, Old: &p.Status, Containers: statuses(c.containers...), Sandbox: &container.Sandbox{Ready: c.sandbox}, Now: noon})
			short := map[corev1.PodConditionType]string{
				corev1.PodReadyToStartContainers: "Sandbox", corev1.PodInitialized: "Init", corev1.PodReady: "Ready",
				corev1.ContainersReady: "Containers", corev1.PodScheduled: "Scheduled",
			}
			got := ""
			for _, k := range s.Conditions {
				if k.Type == "example.com/gate" {
					continue
				}
				got += short[k.Type] + " " + string(k.Status) + " "
				if k.Reason != "" {
					got += k.Reason + " "
				}
				if k.Message != "" {
					got += k.Message + " "
				}
				if k.ObservedGeneration != p.Generation {
					t.Errorf("%s observed generation %d", k.Type, k.ObservedGeneration)
				}
				want := Time(noon)
				if k.Type == corev1.PodScheduled {
					want = earlier // its status is as it was
				}
				if !k.LastTransitionTime.Equal(&want) {
					t.Errorf("%s changed at %v, want %v", k.Type, k.LastTransitionTime, want)
				}
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestTransitionTimesMoveWithTheStatusAlone(t *testing.T) {
	p := of("", "a")
	first := Status(Facts{Pod: p, Old: &p.Status, Containers: statuses(waiting("a")), Now: noon})
	second := Status(Facts{Pod: p, Old: first, Containers: statuses(waiting("a")), Now: noon.Add(time.Minute)})
	third := Status(Facts{Pod: p, Old: second, Containers: statuses(running("a")), Now: noon.Add(2 * time.Minute)})
	at := func(s *corev1.PodStatus) time.Time {
		for _, c := range s.Conditions {
			if c.Type == corev1.PodReady {
				return c.LastTransitionTime.Time
			}
		}
		return time.Time{}
	}
	start := noon.Truncate(time.Second)
	if !at(first).Equal(start) || !at(second).Equal(start) || !at(third).Equal(start.Add(2*time.Minute)) {
		t.Errorf("%v %v %v", at(first), at(second), at(third))
	}
	if !third.StartTime.Time.Equal(start) {
		t.Errorf("start time %v", third.StartTime)
	}
}

func TestAddresses(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	m := Machine{Addrs: func() []netip.Addr { return addrs }}
	p := of("", "a")
	s := Status(Facts{Pod: p, Old: &p.Status, Machine: m, Sandbox: &container.Sandbox{Addr: netip.MustParseAddr("10.0.0.5")}, Now: noon})
	if s.PodIP != "10.0.0.5" || len(s.PodIPs) != 1 || s.HostIP != "192.0.2.1" || len(s.HostIPs) != 2 {
		t.Errorf("%+v", s)
	}
	if s = Status(Facts{Pod: p, Old: s, Machine: m, Now: noon}); s.PodIP != "10.0.0.5" {
		t.Errorf("a pod without its sandbox had %q", s.PodIP)
	}
	p.Spec.HostNetwork = true
	if s = Status(Facts{Pod: p, Old: &p.Status, Machine: m, Sandbox: &container.Sandbox{}, Now: noon}); s.PodIP != "192.0.2.1" {
		t.Errorf("a pod of the host network has %q", s.PodIP)
	}
	addrs = addrs[1:] // the machine has moved
	if s = Status(Facts{Pod: p, Old: s, Machine: m, Sandbox: &container.Sandbox{}, Now: noon}); s.HostIP != "192.0.2.2" || s.PodIP != s.HostIP || len(s.HostIPs) != 1 {
		t.Errorf("at its new address: %+v", s)
	}
}

func TestEnds(t *testing.T) {
	c := container.Container{ID: "c1", ExitKnown: true, StartedAt: noon, FinishedAt: noon.Add(time.Minute)}
	for want, change := range map[string]func(*container.Container){
		"0 Completed":   func(*container.Container) {},
		"7 Error":       func(c *container.Container) { c.ExitCode = 7 },
		"137 OOMKilled": func(c *container.Container) { c.ExitCode, c.OOMKilled = 137, true },
		"255 Unknown":   func(c *container.Container) { c.ExitKnown = false },
	} {
		v := c
		change(&v)
		got := Terminated(v, "m")
		if s := join(got); s != want || got.Message != "m" || got.ContainerID != "containerd://c1" || !got.FinishedAt.Time.Equal(noon.Truncate(time.Second).Add(time.Minute)) {
			t.Errorf("%s: %+v", want, got)
		}
	}
	if got := Lost("c1", noon); join(got) != "137 ContainerStatusUnknown" || got.ContainerID != "containerd://c1" {
		t.Errorf("%+v", got)
	}
	if got := Unstarted("c1", noon, errors.New("no such file")); join(got) != "128 StartError" || got.Message != "no such file" {
		t.Errorf("%+v", got)
	}
}

func join(t *corev1.ContainerStateTerminated) string {
	return map[int32]string{0: "0", 7: "7", 128: "128", 137: "137", 255: "255"}[t.ExitCode] + " " + t.Reason
}
