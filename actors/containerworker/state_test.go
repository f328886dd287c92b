package containerworker

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func object(policy corev1.RestartPolicy) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1"},
		Spec: corev1.PodSpec{
			RestartPolicy: policy,
			Containers:    []corev1.Container{{Name: "c", Image: "app:1", ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}
}

func fresh() *state { return &state{backoff: backoffBase} }

// fact is a container of an attempt as the runtime has it.
func fact(attempt uint32, st container.State, change ...func(*container.Container)) container.Container {
	p := object("")
	c := container.Container{
		ID: pod.ContainerID("u1", "c", attempt), Name: "c", Attempt: attempt, State: st, Image: "app:1", ImageID: "sha256:1", ImageRef: "sha256:1",
		Hash: pod.Hash(&p.Spec.Containers[0]), StartedAt: noon.Add(-time.Minute),
	}
	if st == container.Exited {
		c.ExitKnown, c.FinishedAt = true, noon
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

// line is what is to be done, notes left out.
func line(todo []effect) string {
	var parts []string
	for _, e := range todo {
		switch e := e.(type) {
		case report:
			parts = append(parts, "report")
		case hook:
			parts = append(parts, fmt.Sprintf("hook %d", e.turn))
		case find:
			parts = append(parts, "find "+e.image)
		case launch:
			parts = append(parts, "launch "+e.spec.ID)
		case inspect:
			parts = append(parts, "inspect "+e.id)
		case signal:
			parts = append(parts, "signal "+e.sig.String())
		case clean:
			parts = append(parts, "clean "+e.id)
		case wait:
			parts = append(parts, fmt.Sprintf("wait %s %s", e.delay, strings.TrimPrefix(fmt.Sprintf("%T", e.message), "containerworker.")))
		}
	}
	return strings.Join(parts, ", ")
}

func notes(todo []effect) string {
	var parts []string
	for _, e := range todo {
		switch n := e.(type) {
		case note:
			parts = append(parts, n.reason)
		case podNote:
			parts = append(parts, n.reason)
		}
	}
	return strings.Join(parts, " ")
}

func expect(t *testing.T, what string, todo []effect, want string) {
	t.Helper()
	if got := line(todo); got != want {
		t.Errorf("%s:\n got  %s\n want %s", what, got, want)
	}
}

// shows is the status in a line.
func shows(s *state) string {
	c := s.view().Status
	out := fmt.Sprintf("#%d", c.RestartCount)
	switch {
	case c.State.Running != nil:
		out += " running"
	case c.State.Terminated != nil:
		out += " " + c.State.Terminated.Reason
	case c.State.Waiting != nil:
		out += " " + c.State.Waiting.Reason
	}
	if t := c.LastTerminationState.Terminated; t != nil {
		out += " after " + t.Reason
	}
	return out
}

func TestWhatItBeginsWith(t *testing.T) {
	ran := &corev1.ContainerStatus{
		Name: "c", RestartCount: 4, ContainerID: "containerd://u1.c.4",
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(noon)}},
	}
	completed := &corev1.ContainerStatus{
		Name: "c", RestartCount: 4, ContainerID: "containerd://u1.c.4",
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}},
	}
	rebooted := func(c *container.Container) { c.ExitKnown = false }
	const always, never = corev1.RestartPolicyAlways, corev1.RestartPolicyNever
	for _, c := range []struct {
		name   string
		policy corev1.RestartPolicy
		found  []container.Container
		old    *corev1.ContainerStatus
		todo   string
		after  string // what is done once the runtime was asked
		shows  string
	}{
		{"nothing", always, nil, nil, "report, find app:1, wait 10s unanswered", "", "#0 ContainerCreating"},
		{"one that runs", always, []container.Container{fact(0, container.Running)}, nil, "report, inspect u1.c.0", "", "#0 running"},
		{
			"one that runs, after another", always,
			[]container.Container{fact(0, container.Exited), fact(1, container.Running)},
			nil,
			"report, inspect u1.c.1", "", "#1 running after Completed",
		},
		{
			"one that runs, and more than one before", always,
			[]container.Container{fact(0, container.Exited), fact(1, container.Exited), fact(2, container.Running)},
			nil,
			"clean u1.c.0, report, inspect u1.c.2", "", "#2 running after Completed",
		},
		{"one that was made and not started", always, []container.Container{fact(3, container.Created)}, nil, "report, find app:1, wait 10s unanswered", "", "#3 ContainerCreating"},
		{"one that ended while nobody looked", always, []container.Container{fact(0, container.Exited)}, nil, "inspect u1.c.0", "report, find app:1, wait 10s unanswered", "#0 Completed"},
		{"one that ended in its back-off", always, []container.Container{fact(2, container.Exited)}, nil, "inspect u1.c.2", "report, wait 20s retry", "#2 CrashLoopBackOff after Completed"},
		{"one that ended and stays so", never, []container.Container{fact(0, container.Exited)}, nil, "inspect u1.c.0", "report", "#0 Completed"},
		{"one that a reboot ended", always, []container.Container{fact(5, container.Exited, rebooted)}, nil, "inspect u1.c.5", "report, find app:1, wait 10s unanswered", "#5 Unknown"},
		{"one that a reboot ended for good", never, []container.Container{fact(0, container.Exited, rebooted)}, nil, "inspect u1.c.0", "report", "#0 Unknown"},
		{"one that somebody removed", always, nil, ran, "report, find app:1, wait 10s unanswered", "", "#4 ContainerCreating after ContainerStatusUnknown"},
		{"one that somebody removed, never to run again", never, nil, ran, "report", "", "#4 ContainerStatusUnknown"},
		{"one that had completed and was removed", never, nil, completed, "report", "", "#4 Completed"},
		{
			"one of another definition", always,
			[]container.Container{fact(0, container.Running, func(c *container.Container) { c.Hash = "other" })},
			nil,
			"report, inspect u1.c.0, wait 30s killDue, signal terminated", "", "#0 running",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fresh()
			expect(t, "run", s.run(pod.Run{Pod: object(c.policy), Name: "c", Found: c.found, Old: c.old}, noon), c.todo)
			if c.after != "" {
				newest := c.found[len(c.found)-1]
				expect(t, "asked", s.inspected(inspected{id: newest.ID, fact: newest}, noon), c.after)
			}
			if got := shows(s); got != c.shows {
				t.Errorf("shows %s, want %s", got, c.shows)
			}
			if todo := s.run(pod.Run{Pod: object(c.policy), Name: "c"}, noon); len(todo) > 0 {
				t.Errorf("a second time: %s", line(todo))
			}
		})
	}
}

// started is a state whose first container runs.
func started(t *testing.T, policy corev1.RestartPolicy) *state {
	t.Helper()
	s := fresh()
	s.run(pod.Run{Pod: object(policy), Name: "c"}, noon)
	expect(t, "its image first", s.found(pod.ImageFound{Name: "app:1"}, noon), "")
	expect(t, "its sandbox second", s.enter(pod.Enter{Number: 1}), "launch u1.c.0")
	todo := s.launched(launched{id: "u1.c.0", created: true, fact: fact(0, container.Running)}, noon)
	expect(t, "started", todo, "report")
	if got := notes(todo); got != "Pulled Created Started" {
		t.Errorf("notes %s", got)
	}
	return s
}

func TestImageAndSandboxInAnyOrder(t *testing.T) {
	s := fresh()
	s.run(pod.Run{Pod: object(""), Name: "c"}, noon)
	expect(t, "sandbox", s.enter(pod.Enter{Number: 1}), "")
	expect(t, "sandbox again", s.enter(pod.Enter{Number: 1}), "")
	expect(t, "another image", s.found(pod.ImageFound{Name: "app:2"}, noon), "")
	expect(t, "image", s.found(pod.ImageFound{Name: "app:1"}, noon), "launch u1.c.0")
	expect(t, "image again", s.found(pod.ImageFound{Name: "app:1"}, noon), "")
	expect(t, "an answer that is late", s.unanswered(s.asked), "")
}

func TestAnEndThatIsHeardOfBeforeItsStart(t *testing.T) {
	s := fresh()
	s.run(pod.Run{Pod: object(""), Name: "c"}, noon)
	s.found(pod.ImageFound{Name: "app:1"}, noon)
	s.enter(pod.Enter{Number: 1})
	expect(t, "event", s.happened(container.Event{Kind: container.ContainerExited, ContainerID: "u1.c.0"}), "")
	expect(t, "answer", s.launched(launched{id: "u1.c.0", created: true, fact: fact(0, container.Running)}, noon), "inspect u1.c.0")
}

func TestEventsOfOthersMeanNothing(t *testing.T) {
	s := started(t, "")
	for _, e := range []container.Event{
		{Kind: container.ContainerExited, ContainerID: "u1.c.1"},
		{Kind: container.ContainerExited, ContainerID: "u1.b.0"},
		{Kind: container.ContainerOOM, ContainerID: "u1.c.0"},
		{Kind: container.Gap},
	} {
		expect(t, fmt.Sprint(e), s.happened(e), "")
	}
	expect(t, "an old answer", s.inspected(inspected{id: "u1.c.9", fact: fact(9, container.Exited)}, noon), "")
	expect(t, "a false alarm", s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Running)}, noon), "")
	expect(t, "no answer", s.inspected(inspected{id: "u1.c.0", err: errors.New("busy")}, noon), "wait 500ms look")
	expect(t, "a timer of earlier", s.look(s.looks-1), "")
	expect(t, "the timer", s.look(s.looks), "inspect u1.c.0")
}

func TestStop(t *testing.T) {
	t.Run("signal, then kill", func(t *testing.T) {
		s := started(t, "")
		todo := s.stop(pod.Stop{Grace: 30 * time.Second}, noon)
		expect(t, "stop", todo, "wait 30s killDue, signal terminated")
		if got := notes(todo); got != "Killing" {
			t.Errorf("notes %s", got)
		}
		expect(t, "arrived", s.signaledNow(signaled{id: "u1.c.0"}), "report")
		if v := s.view(); !v.Signaled || v.Stopped {
			t.Errorf("%+v", v)
		}
		expect(t, "again", s.stop(pod.Stop{Grace: 30 * time.Second}, noon), "report")
		expect(t, "shorter", s.stop(pod.Stop{Grace: 5 * time.Second}, noon), "wait 5s killDue, report")
		expect(t, "the first timer", s.killDue(s.killTurn-1), "")
		expect(t, "due", s.killDue(s.killTurn), "signal killed, wait 2s look")
		expect(t, "still there", s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Running)}, noon.Add(7*time.Second)), "signal killed, wait 2s look")
		expect(t, "ended", s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon), "report")
		if v := s.view(); !v.Stopped || !v.Signaled || v.Over {
			t.Errorf("%+v", v)
		}
		expect(t, "nothing starts any more", s.enter(pod.Enter{Number: 9}), "")
	})
	t.Run("its own signal", func(t *testing.T) {
		s := started(t, "")
		s.fact.StopSignal = syscall.SIGQUIT
		expect(t, "stop", s.stop(pod.Stop{Grace: time.Second}, noon), "wait 1s killDue, signal quit")
	})
	t.Run("at once", func(t *testing.T) {
		expect(t, "stop", started(t, "").stop(pod.Stop{}, noon), "signal killed, wait 2s look")
	})
	t.Run("signalled in an earlier life", func(t *testing.T) {
		todo := started(t, "").stop(pod.Stop{Grace: 3 * time.Second, Signaled: true}, noon)
		expect(t, "stop", todo, "wait 3s killDue, report")
		if got := notes(todo); got != "" {
			t.Errorf("notes %s", got)
		}
	})
	t.Run("a signal that is lost is sent again", func(t *testing.T) {
		s := started(t, "")
		s.stop(pod.Stop{Grace: 30 * time.Second}, noon)
		expect(t, "lost", s.signaledNow(signaled{id: "u1.c.0", err: container.ErrGone}), "wait 500ms insist")
		expect(t, "again", s.insist(s.killTurn, noon.Add(time.Second)), "signal terminated")
		expect(t, "gone meanwhile", s.signaledNow(signaled{id: "u1.c.0", err: container.ErrNotFound}), "inspect u1.c.0")
	})
	t.Run("while it is being made", func(t *testing.T) {
		s := fresh()
		s.run(pod.Run{Pod: object(""), Name: "c"}, noon)
		s.found(pod.ImageFound{Name: "app:1"}, noon)
		s.enter(pod.Enter{Number: 1})
		expect(t, "stop", s.stop(pod.Stop{Grace: 30 * time.Second}, noon), "")
		expect(t, "made", s.launched(launched{id: "u1.c.0", created: true, fact: fact(0, container.Running)}, noon.Add(10*time.Second)),
			"report, wait 20s killDue, signal terminated")
	})
	t.Run("before it is made", func(t *testing.T) {
		s := fresh()
		s.run(pod.Run{Pod: object(""), Name: "c"}, noon)
		expect(t, "stop", s.stop(pod.Stop{Grace: 30 * time.Second}, noon), "report")
		expect(t, "image", s.found(pod.ImageFound{Name: "app:1"}, noon), "")
		if v := s.view(); !v.Stopped || !v.Signaled {
			t.Errorf("%+v", v)
		}
	})
	t.Run("in its back-off it shows how it ended", func(t *testing.T) {
		s := started(t, "")
		s.streak = 3
		s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon)
		if got := shows(s); got != "#0 CrashLoopBackOff after Completed" {
			t.Errorf("shows %s", got)
		}
		turn := s.turn
		expect(t, "stop", s.stop(pod.Stop{}, noon), "report")
		expect(t, "its timer", s.retry(turn), "")
		if got := shows(s); got != "#0 Completed" {
			t.Errorf("shows %s", got)
		}
	})
}

func TestLeave(t *testing.T) {
	s := started(t, "")
	expect(t, "leave", s.leave(pod.Leave{Number: 2, Grace: time.Second}, noon), "wait 1s killDue, signal terminated")
	if s.view().Left != 0 {
		t.Error("it runs, and says it has left")
	}
	expect(t, "ended", s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon), "report")
	if s.view().Left != 2 {
		t.Errorf("left %d", s.view().Left)
	}
	expect(t, "in another sandbox", s.enter(pod.Enter{Number: 3}), "launch u1.c.1")

	t.Run("one that has ended for good stays so", func(t *testing.T) {
		s := started(t, corev1.RestartPolicyNever)
		s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon)
		expect(t, "leave", s.leave(pod.Leave{Number: 2}, noon), "report")
		if v := s.view(); v.Left != 2 || !v.Over {
			t.Errorf("%+v", v)
		}
		expect(t, "enter", s.enter(pod.Enter{Number: 3}), "")
	})
	t.Run("the next sandbox comes first", func(t *testing.T) {
		s := started(t, "")
		s.leave(pod.Leave{Number: 2, Grace: time.Second}, noon)
		expect(t, "enter", s.enter(pod.Enter{Number: 3}), "")
		expect(t, "ended", s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon), "report, launch u1.c.1")
	})
	t.Run("its sandbox is not there", func(t *testing.T) {
		s := fresh()
		s.run(pod.Run{Pod: object(""), Name: "c"}, noon)
		s.found(pod.ImageFound{Name: "app:1"}, noon)
		s.enter(pod.Enter{Number: 7})
		expect(t, "answer", s.launched(launched{id: "u1.c.0", err: container.ErrNotReady}, noon), "report")
		if s.view().Lost != 7 {
			t.Errorf("%+v", s.view())
		}
	})
}

func TestSeen(t *testing.T) {
	s := started(t, "")
	odd := fact(7, container.Running)
	odd.ID = "odd"
	expect(t, "all is well", s.seen([]container.Container{fact(0, container.Running)}), "")
	expect(t, "strangers", s.seen([]container.Container{fact(0, container.Running), fact(5, container.Exited), odd}), "clean u1.c.5, clean odd")
	expect(t, "gone", s.seen(nil), "inspect u1.c.0")
	expect(t, "ended", s.seen([]container.Container{fact(0, container.Exited)}), "inspect u1.c.0")
}

func TestDelays(t *testing.T) {
	s := fresh()
	for n, want := range []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute} {
		if got := s.delay(n); got != want {
			t.Errorf("after %d: %s, want %s", n, got, want)
		}
	}
	if got := s.delay(1 << 30); got != 5*time.Minute {
		t.Errorf("after very many: %s", got)
	}
	s.backoff = 100 * time.Millisecond
	if got := s.delay(2); got != 200*time.Millisecond {
		t.Errorf("with another base: %s", got)
	}
}

func TestAContainerIsMadeOnceWhatItIsMadeOfIsThere(t *testing.T) {
	p := object(corev1.RestartPolicyAlways)
	p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "key"}}}}
	s := fresh()
	s.run(pod.Run{Pod: p, Name: "c"}, noon)
	s.enter(pod.Enter{Number: 1})
	todo := s.found(pod.ImageFound{Name: "app:1"}, noon)
	if line(todo) != "report, wait 10s containerworker.retry" && line(todo) != "report, wait 10s retry" || notes(todo) != "Failed" {
		t.Fatalf("%s; %s", line(todo), notes(todo))
	}
	if w := s.status.State.Waiting; w == nil || w.Reason != "CreateContainerConfigError" || w.Message != `secret "key" not found` {
		t.Errorf("it shows %+v", w)
	}
	old := s.turn
	there := api.Sources{Secrets: map[string]*corev1.Secret{"key": {Data: map[string][]byte{"A": []byte("1")}}}}
	todo = s.revise(pod.Revise{Pod: p, Sources: there}, noon)
	if line(todo) != "launch u1.c.0" || !strings.Contains(strings.Join(todo[0].(launch).spec.Env, " "), "A=1") {
		t.Fatalf("once it is there: %v", todo)
	}
	for what, todo := range map[string][]effect{
		"the retry that is no longer needed": s.retry(old),
		"another change":                     s.revise(pod.Revise{Pod: p}, noon),
	} {
		if len(todo) > 0 {
			t.Errorf("%s: %v", what, todo)
		}
	}
}

// asking is a state that has asked for its image, with its sandbox there.
func asking(t *testing.T, policy corev1.PullPolicy) *state {
	t.Helper()
	p := object("")
	p.Spec.Containers[0].ImagePullPolicy = policy
	s := fresh()
	s.run(pod.Run{Pod: p, Name: "c"}, noon)
	s.enter(pod.Enter{Number: 1})
	return s
}

func TestAPull(t *testing.T) {
	s := asking(t, corev1.PullIfNotPresent)
	todo := s.pulls(pod.ImagePulling{Name: "app:1", Lacking: []string{"a", "b"}}, noon)
	expect(t, "it is pulled", todo, "")
	if got := notes(todo); got != "Pulling FailedToRetrieveImagePullSecret" {
		t.Errorf("notes %s", got)
	}
	if got := shows(s); got != "#0 ContainerCreating" {
		t.Errorf("shows %s", got)
	}
	expect(t, "and takes long", s.unanswered(s.asked), "find app:1, wait 10s unanswered")
	found := pod.ImageFound{Name: "app:1", Asked: true, Took: 1234567 * time.Microsecond, Image: container.Image{ID: "sha256:1", Size: 99}}
	todo = s.found(found, noon.Add(3*time.Second))
	expect(t, "it has come", todo, "launch u1.c.0")
	if got, want := todo[0].(note).message, `Successfully pulled image "app:1" in 1.234s (3s including waiting). Image size: 99 bytes.`; got != want {
		t.Errorf("says %s", got)
	}
	todo = s.launched(launched{id: "u1.c.0", created: true, fact: fact(0, container.Running)}, noon)
	if got := notes(todo); got != "Created Started" {
		t.Errorf("notes %s", got)
	}
}

func TestAPullThatFails(t *testing.T) {
	s := asking(t, corev1.PullIfNotPresent)
	s.pulls(pod.ImagePulling{Name: "app:1"}, noon)
	refused := pod.ImageFound{Name: "app:1", Asked: true, Err: fmt.Errorf("pull app:1: %w", container.ErrDenied)}
	todo := s.found(refused, noon)
	expect(t, "refused", todo, "report, wait 2s settled, wait 10s retry")
	if got := notes(todo); got != "Failed Failed" {
		t.Errorf("notes %s", got)
	}
	if got, want := s.status.State.Waiting.Message, "pull app:1: denied"; got != want || shows(s) != "#0 ErrImagePull" {
		t.Errorf("shows %s: %s", shows(s), got)
	}
	expect(t, "the same answer again", s.found(refused, noon), "")
	todo = s.settled(s.turn)
	expect(t, "a while later", todo, "report")
	if got, want := s.status.State.Waiting.Message, `Back-off pulling image "app:1": ErrImagePull: pull app:1: denied`; got != want || shows(s) != "#0 ImagePullBackOff" || notes(todo) != "BackOff Failed" {
		t.Errorf("shows %s: %s, notes %s", shows(s), got, notes(todo))
	}
	for _, delay := range []string{"20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"} {
		expect(t, "again", s.retry(s.turn), "find app:1, wait 10s unanswered")
		expect(t, "refused again", s.found(refused, noon), "report, wait 2s settled, wait "+delay+" retry")
	}
	expect(t, "it has come by other ways", s.found(pod.ImageFound{Name: "app:1"}, noon), "launch u1.c.0")
	s.turned(waiting)
	s.image = nil
	s.ask()
	expect(t, "the count begins anew", s.found(refused, noon), "report, wait 2s settled, wait 10s retry")
}

func TestWithoutARegistryItSaysWhatElseCanBeDone(t *testing.T) {
	s := asking(t, corev1.PullIfNotPresent)
	s.found(pod.ImageFound{Name: "app:1", Asked: true, Err: container.ErrUnreachable}, noon)
	if got := s.status.State.Waiting.Message; !strings.Contains(got, "troupe image load") {
		t.Error(got)
	}
}

func TestWhatIsNotToBePulled(t *testing.T) {
	s := asking(t, corev1.PullNever)
	expect(t, "never", s.found(pod.ImageFound{Name: "app:1", Err: container.ErrNotFound}, noon), "report")
	if got := shows(s); got != "#0 ErrImageNeverPull" {
		t.Errorf("shows %s", got)
	}
	expect(t, "loaded", s.found(pod.ImageFound{Name: "app:1"}, noon), "launch u1.c.0")

	p := object("")
	p.Spec.Containers[0].Image = "not a name"
	s = fresh()
	todo := s.run(pod.Run{Pod: p, Name: "c"}, noon)
	expect(t, "no name", todo, "report, report")
	if got, want := s.status.State.Waiting.Message, `Failed to apply default image tag "not a name": couldn't parse image name "not a name": invalid reference format`; got != want || shows(s) != "#0 InvalidImageName" || notes(todo) != "InspectFailed Failed" {
		t.Errorf("shows %s: %s, notes %s", shows(s), got, notes(todo))
	}
	expect(t, "a better name", s.revise(pod.Revise{Pod: object("")}, noon), "find app:1, wait 10s unanswered")
}

func TestAlwaysMeansEachTime(t *testing.T) {
	for policy, again := range map[corev1.PullPolicy]string{
		corev1.PullAlways:       "report, find app:1, wait 10s unanswered",
		corev1.PullIfNotPresent: "report, launch u1.c.1",
	} {
		s := asking(t, policy)
		s.found(pod.ImageFound{Name: "app:1", Asked: true}, noon)
		s.launched(launched{id: "u1.c.0", created: true, fact: fact(0, container.Running)}, noon)
		expect(t, string(policy), s.inspected(inspected{id: "u1.c.0", fact: fact(0, container.Exited)}, noon), again)
		if policy == corev1.PullIfNotPresent {
			todo := s.launched(launched{id: "u1.c.1", created: true, fact: fact(1, container.Running)}, noon)
			if got := notes(todo); got != "Pulled Created Started" {
				t.Errorf("notes %s", got)
			}
		}
	}
}
