// Package volumes sets up what pods mount and takes it down, one step at a
// time for each pod.
//
//	Supervisor  node: 5 restarts in 10m
//	Accepts     pod.Mount pod.Unmount pod.Volumes
//	Emits       pod.Mounted pod.Unmounted pod.VolumesOf to whoever asked
//	On restart  forgets what was asked: whoever asked asks again
package volumes

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Port sets volumes up. Every method may be called again after a crash at any
// point.
type Port interface {
	// Setup makes what the pod's volumes need, their files as the sources are,
	// and returns the mounts of each container by its name.
	Setup(ctx context.Context, p *corev1.Pod, s api.Sources) (map[string][]container.Mount, error)
	// Teardown removes it all; unknown pods are no error.
	Teardown(ctx context.Context, uid types.UID) error
	// Pods lists who has any.
	Pods(ctx context.Context) ([]types.UID, error)
}

// Config is what the actor needs.
type Config struct {
	Kernel mailbox.Kernel
	Log    *slog.Logger
	Port   Port
}

// New returns what spawns the actor.
func New(c Config) actor.Producer {
	return func() actor.Actor {
		return &volumes{config: c, work: c.Kernel.New(), queues: map[types.UID][]step{}}
	}
}

type volumes struct {
	config Config
	work   mailbox.Work
	queues map[types.UID][]step // of each pod; the first is under way
}

// step is one thing to do for a pod.
type step struct {
	asker   *actor.PID
	pod     *corev1.Pod // nil: tear down
	sources api.Sources
}

// What the port answered.
type (
	mounted struct {
		uid    types.UID
		mounts map[string][]container.Mount
		err    error
	}
	unmounted struct {
		uid types.UID
		err error
	}
	listed struct {
		asker *actor.PID
		uids  []types.UID
		err   error
	}
)

// Receive implements [actor.Actor].
func (v *volumes) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case pod.Mount:
		v.add(ctx, m.Pod.UID, step{asker: ctx.Sender(), pod: m.Pod, sources: m.Sources})
	case pod.Unmount:
		v.add(ctx, m.UID, step{asker: ctx.Sender()})
	case mounted:
		v.done(ctx, m.uid, pod.Mounted{UID: m.uid, Mounts: m.mounts, Err: m.err})
	case unmounted:
		v.done(ctx, m.uid, pod.Unmounted{UID: m.uid, Err: m.err})
	case pod.Volumes:
		v.list(ctx, ctx.Sender())
	case listed:
		ctx.Send(m.asker, pod.VolumesOf{UIDs: m.uids, Err: m.err})
	case *actor.Stopping, *actor.Restarting:
		v.work.Cancel()
	case actor.SystemMessage, actor.AutoReceiveMessage, *actor.DeadLetterResponse: // who did not hear is asked again in time
	default:
		v.config.Log.Warn("unknown message", "actor", ctx.Self().Id, "message", fmt.Sprintf("%T", m))
	}
}

func (v *volumes) add(ctx actor.Context, uid types.UID, s step) {
	v.queues[uid] = append(v.queues[uid], s)
	if len(v.queues[uid]) == 1 {
		v.begin(ctx, uid)
	}
}

func (v *volumes) begin(ctx actor.Context, uid types.UID) {
	port, s := v.config.Port, v.queues[uid][0]
	v.work.Go(ctx, func(c context.Context) any {
		if s.pod == nil {
			return unmounted{uid, port.Teardown(c, uid)}
		}
		mounts, err := port.Setup(c, s.pod, s.sources)
		return mounted{uid, mounts, err}
	})
}

func (v *volumes) done(ctx actor.Context, uid types.UID, reply any) {
	q := v.queues[uid]
	if len(q) == 0 {
		return
	}
	if q[0].asker != nil {
		ctx.Send(q[0].asker, reply)
	}
	if q = q[1:]; len(q) == 0 {
		delete(v.queues, uid)
		return
	}
	v.queues[uid] = q
	v.begin(ctx, uid)
}

func (v *volumes) list(ctx actor.Context, asker *actor.PID) {
	port := v.config.Port
	v.work.Go(ctx, func(c context.Context) any {
		uids, err := port.Pods(c)
		return listed{asker, uids, err}
	})
}
