// Package images sees to it that this machine has the images that its
// containers need: it looks, pulls what is missing, once for all who want it,
// and ends a pull that nobody wants any more. When the disk fills, images go
// that no container uses.
//
//	Supervisor  node: 5 restarts in 10m
//	Accepts     pod.FindImage pod.PullImage pod.ImagesLoaded
//	Emits       pod.ImagePulling pod.ImageStep pod.ImageFound to whoever asked, the last again when an absent image has come
//	On restart  forgets who waits, and its pulls end: they ask again by themselves
package images

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Config is what the actor needs.
type Config struct {
	Kernel  mailbox.Kernel
	Log     *slog.Logger
	Runtime container.Runtime
	Feed    Feed
	GC      func() GC // as it is now; nil: Kubernetes' own
}

// Feed is where a pod's secrets are read. cluster/feed has it.
type Feed interface {
	Sources(p *corev1.Pod) (api.Sources, error)
}

// New returns what spawns the actor.
func New(c Config) actor.Producer {
	return func() actor.Actor {
		return &images{config: c, work: c.Kernel.New(), state: newState(c.gc()), pulls: map[uint64]context.CancelFunc{}}
	}
}

type images struct {
	config Config
	work   mailbox.Work
	state  state
	pulls  map[uint64]context.CancelFunc // those that run
}

// What the actor tells itself.
type (
	looked struct {
		name  string
		image container.Image
		err   error
	}
	pulled struct {
		name   string
		number uint64
		image  container.Image
		err    error
	}
	stepDue   struct{}
	surveyDue struct{}
	collected struct{ err error }
)

// Receive implements [actor.Actor].
func (i *images) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		i.work.After(ctx, surveyEvery, surveyDue{})
	case pod.FindImage:
		i.apply(ctx, i.state.find(i.asker(ctx.Sender(), m)))
	case pod.PullImage:
		i.apply(ctx, i.state.find(&asker{who: ctx.Sender(), name: m.Name, insists: true, auths: []container.Auth{m.Auth}}))
	case pod.ImagesLoaded:
		i.apply(ctx, i.state.loaded())
	case looked:
		i.apply(ctx, i.state.looked(m, i.work.Now()))
	case pulled:
		delete(i.pulls, m.number)
		i.apply(ctx, i.state.pulled(m, i.work.Now()))
	case stepDue:
		i.apply(ctx, i.state.step())
	case surveyDue:
		i.work.After(ctx, surveyEvery, surveyDue{})
		i.apply(ctx, i.state.inspect())
	case survey:
		if m.err != nil {
			i.config.Log.Warn("look whether images have to go", "error", m.err)
		}
		i.state.gc = i.config.gc()
		i.apply(ctx, i.state.surveyed(m, i.work.Now()))
	case collected:
		if m.err != nil {
			i.config.Log.Warn("remove images that nobody uses", "error", m.err)
		}
		i.apply(ctx, i.state.collected())
	case *actor.Terminated:
		i.apply(ctx, i.state.gone(m.Who, i.work.Now()))
	case *actor.Stopping, *actor.Restarting:
		i.work.Cancel()
	case actor.SystemMessage, actor.AutoReceiveMessage, *actor.DeadLetterResponse: // who did not hear is asked again in time
	default:
		i.config.Log.Warn("unknown message", "actor", ctx.Self().Id, "message", fmt.Sprintf("%T", m))
	}
}

// asker is a container that needs an image, with what its pod may show a registry.
func (i *images) asker(who *actor.PID, m pod.FindImage) *asker {
	a := &asker{who: who, name: m.Name, policy: m.Policy}
	var secrets []*corev1.Secret
	if len(m.Pod.Spec.ImagePullSecrets) > 0 {
		sources, err := i.config.Feed.Sources(m.Pod)
		if err != nil {
			panic(err) // the replica cannot be read
		}
		for _, ref := range m.Pod.Spec.ImagePullSecrets {
			if s := sources.Secrets[ref.Name]; s != nil {
				secrets = append(secrets, s)
			} else {
				a.lacking = append(a.lacking, ref.Name)
			}
		}
	}
	a.auths, a.wrong = pod.Credentials(m.Name, secrets)
	return a
}

// apply carries out what the state machine decided.
func (i *images) apply(ctx actor.Context, todo []effect) {
	runtime := i.config.Runtime
	for _, e := range todo {
		switch e := e.(type) {
		case look:
			i.work.Go(ctx, func(c context.Context) any {
				found, err := runtime.Image(c, e.name)
				return looked{e.name, found, err}
			})
		case start:
			p := e.pull
			i.pulls[p.number] = i.work.Go(ctx, func(c context.Context) any {
				found, err := pullAs(c, runtime, p)
				return pulled{p.name, p.number, found, err}
			})
		case stop:
			i.pulls[e.number]()
			delete(i.pulls, e.number)
		case tell:
			ctx.Send(e.who, e.message)
		case watch:
			ctx.Watch(e.who)
		case unwatch:
			ctx.Unwatch(e.who)
		case again:
			i.work.After(ctx, e.after, stepDue{})
		case inspect:
			i.work.Go(ctx, func(c context.Context) any { return surveyed(c, runtime) })
		case remove:
			if len(e.ids) > 0 {
				i.config.Log.Info("the disk is full: images that nobody uses are removed", "images", e.ids, "bytes", e.bytes)
			}
			if e.lacks > 0 {
				i.config.Log.Warn("the disk is full, and no more images may go", "lacking", e.lacks)
			}
			i.work.Go(ctx, func(c context.Context) any { return collected{collect(c, runtime, e.ids)} })
		}
	}
}

// pullAs tries the credentials in turn.
func pullAs(ctx context.Context, r container.Runtime, p *pull) (container.Image, error) {
	var failed []error
	for _, auth := range p.auths {
		found, err := r.Pull(ctx, p.name, auth, p.progress)
		if err == nil {
			return found, nil
		}
		failed = append(failed, err)
	}
	if len(failed) == 1 {
		return container.Image{}, failed[0]
	}
	return container.Image{}, utilerrors.NewAggregate(failed)
}
