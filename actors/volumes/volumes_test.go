package volumes_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors/actortest"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/volumes"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// port takes a second for each step, and writes down what it does.
type port struct {
	mu   sync.Mutex
	did  []string
	busy map[types.UID]int
	err  error
}

func (p *port) step(name string, uid types.UID) error {
	p.mu.Lock()
	if p.busy[uid]++; p.busy[uid] > 1 {
		p.did = append(p.did, "two at a time for "+string(uid))
	}
	p.mu.Unlock()
	time.Sleep(time.Second)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy[uid]--
	p.did = append(p.did, name+" "+string(uid))
	return p.err
}

func (p *port) Setup(_ context.Context, o *corev1.Pod, _ api.Sources) (map[string][]container.Mount, error) {
	return map[string][]container.Mount{"c": {{HostPath: "/v", ContainerPath: "/v"}}}, p.step("up", o.UID)
}

func (p *port) Teardown(_ context.Context, uid types.UID) error { return p.step("down", uid) }

func (p *port) Pods(context.Context) ([]types.UID, error) { return []types.UID{"u1", "u2"}, p.err }

func (p *port) done() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := p.did
	p.did = nil
	return done
}

func object(uid types.UID) *corev1.Pod { return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}} }

func run(t *testing.T, body func(k *actortest.Kit, p *port)) {
	t.Helper()
	p := &port{busy: map[types.UID]int{}}
	actortest.Run(t, volumes.New(volumes.Config{Kernel: mailbox.Real(), Port: p}), func(k *actortest.Kit) {
		k.Play("asker", nil)
		body(k, p)
	})
}

func TestStepsOfAPodFollowEachOther(t *testing.T) {
	run(t, func(k *actortest.Kit, p *port) {
		k.TellFrom("asker", pod.Mount{Pod: object("u1")})
		k.TellFrom("asker", pod.Unmount{UID: "u1"})
		k.TellFrom("asker", pod.Mount{Pod: object("u2")})
		k.Advance(time.Second)
		if got := p.done(); !slices.Contains(got, "up u1") || !slices.Contains(got, "up u2") || len(got) != 2 {
			t.Errorf("after a second: %v", got)
		}
		k.Advance(time.Second)
		if got := p.done(); !slices.Equal(got, []string{"down u1"}) {
			t.Errorf("after two: %v", got)
		}
		var mounted, unmounted int
		for _, m := range k.Messages("asker") {
			switch m := m.(type) {
			case pod.Mounted:
				if mounted++; m.Err != nil || len(m.Mounts["c"]) != 1 {
					t.Errorf("%+v", m)
				}
			case pod.Unmounted:
				unmounted++
			}
		}
		if mounted != 2 || unmounted != 1 {
			t.Errorf("%d mounted, %d unmounted", mounted, unmounted)
		}
	})
}

func TestFailuresAreAnswers(t *testing.T) {
	run(t, func(k *actortest.Kit, p *port) {
		p.err = errors.New("no such device")
		k.TellFrom("asker", pod.Mount{Pod: object("u1")})
		k.TellFrom("asker", pod.Unmount{UID: "u1"})
		k.TellFrom("asker", pod.Volumes{})
		k.Advance(3 * time.Second)
		got := k.Messages("asker")
		if len(got) != 3 || got[0].(pod.VolumesOf).Err == nil || got[1].(pod.Mounted).Err == nil || got[2].(pod.Unmounted).Err == nil {
			t.Errorf("%+v", got)
		}
	})
}

func TestARestartForgetsWhatWasAsked(t *testing.T) {
	run(t, func(k *actortest.Kit, p *port) {
		k.TellFrom("asker", pod.Mount{Pod: object("u1")})
		k.Crash()
		k.Advance(2 * time.Second)
		if got := k.Messages("asker"); len(got) > 0 {
			t.Errorf("%+v", got)
		}
		k.TellFrom("asker", pod.Mount{Pod: object("u1")})
		k.Advance(time.Second)
		if got := k.Messages("asker"); len(got) != 1 {
			t.Errorf("%+v", got)
		}
	})
}
