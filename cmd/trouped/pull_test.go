package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/troupe-sh/troupe/actors/actortest"
	"github.com/troupe-sh/troupe/actors/images"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/pod"
)

func TestAPullForOneWhoIsNoActor(t *testing.T) {
	r := fake.New(fake.Options{})
	actortest.Run(t, images.New(images.Config{Kernel: mailbox.Real(), Runtime: r}), func(k *actortest.Kit) {
		k.Start()
		r.Offer("app:1", fake.Offer{Takes: 25 * time.Second, Size: 400}) // longer than it waits before it asks again, and not over when it does
		pull := func(ctx context.Context, name string, step func(container.Step)) (container.Image, error) {
			return pullImage(ctx, k.Root(), k.PID(actortest.Path), pod.PullImage{Name: name}, step)
		}
		var seen []int64
		if i, err := pull(context.Background(), "app:1", func(s container.Step) { seen = append(seen, s.BytesHere) }); err != nil || i.ID == "" {
			t.Errorf("%+v, %v", i, err)
		}
		if !slices.IsSorted(seen) || !slices.Contains(seen, 100) || !slices.Contains(seen, 300) || r.Calls("Pull") != 1 {
			t.Errorf("on the way %v, %d pulls", seen, r.Calls("Pull"))
		}
		if _, err := pull(context.Background(), "none:1", nil); !errors.Is(err, container.ErrNotFound) {
			t.Errorf("one that is not there: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 1100*time.Millisecond) // between two words on how far it is
		defer cancel()
		r.Offer("slow:1", fake.Offer{Takes: time.Hour})
		if _, err := pull(ctx, "slow:1", func(container.Step) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given up: %v", err)
		}
		k.Advance(2 * time.Hour)
		if _, err := r.Image(context.Background(), "slow:1"); !errors.Is(err, container.ErrNotFound) {
			t.Errorf("nobody wants it, and it was pulled: %v", err)
		}
	})
}
