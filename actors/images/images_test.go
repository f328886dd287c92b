package images_test

import (
	"errors"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/actortest"
	"github.com/troupe-sh/troupe/actors/images"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/pod"
)

func run(t *testing.T, body func(k *actortest.Kit, r *fake.Runtime)) {
	t.Helper()
	r := fake.New(fake.Options{})
	actortest.Run(t, func() actor.Actor {
		return images.New(images.Config{Kernel: mailbox.Real(), Log: nil, Runtime: r})()
	}, func(k *actortest.Kit) {
		k.Play("asker", nil)
		k.Play("other", nil)
		body(k, r)
	})
}

// answers are what a played actor heard.
func answers(k *actortest.Kit, path string) (found []pod.ImageFound) {
	for _, m := range k.Messages(path) {
		found = append(found, m.(pod.ImageFound))
	}
	return found
}

func TestPresent(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		r.AddImage("app:1", fake.Behaviour{})
		k.TellFrom("asker", pod.FindImage{Name: "app:1"})
		if got := answers(k, "asker"); len(got) != 1 || got[0].Err != nil || got[0].Name != "app:1" || got[0].Image.ID == "" {
			t.Errorf("%+v", got)
		}
	})
}

func TestAbsentUntilItComes(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		k.TellFrom("asker", pod.FindImage{Name: "app:1"})
		k.TellFrom("other", pod.FindImage{Name: "app:1"})
		k.TellFrom("other", pod.FindImage{Name: "app:2"})
		if got := answers(k, "asker"); len(got) != 1 || !errors.Is(got[0].Err, container.ErrNotFound) {
			t.Errorf("%+v", got)
		}
		if got := answers(k, "other"); len(got) != 2 {
			t.Errorf("%+v", got)
		}
		k.Tell(pod.ImagesLoaded{}) // of others
		if a, b := answers(k, "asker"), answers(k, "other"); len(a) > 0 || len(b) > 0 {
			t.Errorf("told again of what they know: %+v, %+v", a, b)
		}
		r.AddImage("app:1", fake.Behaviour{})
		k.Tell(pod.ImagesLoaded{})
		for _, path := range []string{"asker", "other"} {
			if got := answers(k, path); len(got) != 1 || got[0].Err != nil {
				t.Errorf("%s: %+v", path, got)
			}
		}
		k.Tell(pod.ImagesLoaded{})
		if got := answers(k, "asker"); len(got) > 0 {
			t.Errorf("told twice: %+v", got)
		}
	})
}

func TestAFailureIsAnAnswer(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		r.AddImage("app:1", fake.Behaviour{})
		r.Inject(fake.Fault{Method: "Image", Err: container.ErrGone})
		for _, want := range []error{container.ErrGone, nil} {
			k.TellFrom("asker", pod.FindImage{Name: "app:1"})
			if got := answers(k, "asker"); len(got) != 1 || !errors.Is(got[0].Err, want) {
				t.Errorf("%+v, want %v", got, want)
			}
		}
	})
}

func TestARestartForgetsWhoWaits(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		k.TellFrom("asker", pod.FindImage{Name: "app:1"})
		answers(k, "asker")
		k.Crash()
		r.AddImage("app:1", fake.Behaviour{})
		k.Tell(pod.ImagesLoaded{})
		if got := answers(k, "asker"); len(got) > 0 {
			t.Errorf("%+v", got)
		}
		k.TellFrom("asker", pod.FindImage{Name: "app:1"})
		if got := answers(k, "asker"); len(got) != 1 || got[0].Err != nil {
			t.Errorf("%+v", got)
		}
	})
}
