package containerworker

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// probed is a state whose first container runs and is asked everything.
func probed(t *testing.T, policy corev1.RestartPolicy) *state {
	t.Helper()
	s := fresh()
	s.run(pod.Run{Pod: withProbes(policy), Name: "c"}, noon)
	s.found(pod.ImageFound{Name: "app:1"}, noon)
	s.enter(pod.Enter{Number: 1})
	expect(t, "started", s.launched(launched{id: "u1.c.0", created: true, fact: fact(0, container.Running)}, noon), "report")
	return s
}

func withProbes(policy corev1.RestartPolicy) *corev1.Pod {
	p := object(policy)
	c := &p.Spec.Containers[0]
	grace := int64(5)
	c.StartupProbe, c.ReadinessProbe = &corev1.Probe{}, &corev1.Probe{}
	c.LivenessProbe = &corev1.Probe{TerminationGracePeriodSeconds: &grace}
	return p
}

func health(kind pod.ProbeKind, healthy bool) pod.Health {
	return pod.Health{ID: "u1.c.0", Kind: kind, Healthy: healthy}
}

// fares is whether the container has started and is ready.
func fares(s *state) string {
	c := s.view().Status
	return fmt.Sprintf("%t %t", *c.Started, c.Ready)
}

func TestHealth(t *testing.T) {
	s := probed(t, "")
	for _, step := range []struct {
		name string
		what pod.Health
		todo string
		then string
	}{
		{"ready, and has not started", health(pod.Readiness, true), "", "false false"},
		{"started", health(pod.Startup, true), "report", "true false"},
		{"started again", health(pod.Startup, true), "", "true false"},
		{"ready", health(pod.Readiness, true), "report", "true true"},
		{"ready again", health(pod.Readiness, true), "", "true true"},
		{"alive", health(pod.Liveness, true), "", "true true"},
		{"another one's", pod.Health{ID: "u1.c.1", Kind: pod.Readiness}, "", "true true"},
		{"not ready", health(pod.Readiness, false), "report", "true false"},
		{"dead", health(pod.Liveness, false), "report, wait 5s killDue, signal terminated", "true false"},
		{"dead again", health(pod.Liveness, false), "", "true false"},
	} {
		expect(t, step.name, s.health(step.what, noon), step.todo)
		if got := fares(s); got != step.then {
			t.Errorf("%s: started and ready %s, want %s", step.name, got, step.then)
		}
	}
	expect(t, "ended", s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon), "report, launch u1.c.1")
	if v := s.view(); !v.Heals || v.Ending || fares(s) != "false false" {
		t.Errorf("%+v", v)
	}
	s.launched(launched{id: "u1.c.1", created: true, fact: fact(1, container.Running)}, noon)
	if v := s.view(); v.Heals || fares(s) != "false false" {
		t.Errorf("%+v", v)
	}
}

func TestWhatAProbeEnds(t *testing.T) {
	for _, c := range []struct {
		policy corev1.RestartPolicy
		todo   string
		why    string
	}{
		{corev1.RestartPolicyAlways, "report, launch u1.c.1", "Container c failed startup probe, will be restarted"},
		{corev1.RestartPolicyOnFailure, "report, launch u1.c.1", "Container c failed startup probe, will be restarted"}, // though its exit code is 0
		{corev1.RestartPolicyNever, "report", "Container c failed startup probe"},
	} {
		s := probed(t, c.policy)
		expect(t, "failed", s.health(health(pod.Startup, false), noon), "report, wait 30s killDue, signal terminated")
		if s.why != c.why {
			t.Errorf("%s: %s", c.policy, s.why)
		}
		expect(t, string(c.policy), s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon), c.todo)
	}
	t.Run("and is deleted meanwhile", func(t *testing.T) {
		s := probed(t, "")
		s.health(health(pod.Startup, false), noon)
		expect(t, "stop", s.stop(pod.Stop{Grace: time.Minute}, noon), "")
		expect(t, "ended", s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon), "report")
		if !s.view().Stopped {
			t.Errorf("%+v", s.view())
		}
	})
	t.Run("while its image changes", func(t *testing.T) {
		s := probed(t, "")
		s.health(health(pod.Startup, false), noon)
		p := withProbes("")
		p.Spec.Containers[0].Image = "app:2"
		expect(t, "revised", s.revise(pod.Revise{Pod: p}, noon), "")
		expect(t, "ended", s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon), "report, find app:2, wait 10s unanswered")
	})
}

func TestWhatIsRememberedOfOneThatRunsOn(t *testing.T) {
	yes, no := true, false
	status := func(id string, started *bool, ready bool) *corev1.ContainerStatus {
		return &corev1.ContainerStatus{
			Name: "c", ContainerID: "containerd://" + id, Started: started, Ready: ready,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}
	}
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		old  *corev1.ContainerStatus
		want string
	}{
		{"nothing", withProbes(""), nil, "false false"},
		{"that it was ready", withProbes(""), status("u1.c.0", &yes, true), "true true"},
		{"that it was not ready", withProbes(""), status("u1.c.0", &yes, false), "true false"},
		{"that it had not started", withProbes(""), status("u1.c.0", &no, false), "false false"},
		{"what nobody said", withProbes(""), status("u1.c.0", nil, true), "false false"},
		{"what another one was", withProbes(""), status("u0.c.0", &yes, true), "false false"},
		{"what it was, without probes", object(""), status("u1.c.0", &no, false), "true true"},
	} {
		s := fresh()
		s.run(pod.Run{Pod: c.pod, Name: "c", Found: []container.Container{fact(0, container.Running)}, Old: c.old}, noon)
		if got := fares(s); got != c.want {
			t.Errorf("%s: started and ready %s, want %s", c.name, got, c.want)
		}
		if v := s.view(); !v.Adopted || v.ID != "u1.c.0" || !v.Since.Equal(noon.Add(-time.Minute)) {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}
