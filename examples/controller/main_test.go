package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
	"github.com/troupe-sh/troupe/sdk"
)

const patience = 30 * time.Second

// world is a control tree at work, with the controller beside it.
type world struct {
	t       *testing.T
	pods    sdk.Objects[*corev1.Pod]
	cards   sdk.Objects[*corev1.ConfigMap]
	changes *sdk.Cache[*corev1.ConfigMap]
	changed chan struct{}
}

// eventually waits for something to become true of the cards.
func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.After(patience); !is(); {
		select {
		case <-w.changed:
		case <-deadline:
			w.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func (w *world) card(of string) *corev1.ConfigMap {
	card, _ := w.changes.Get("default", of+"-card")
	return card
}

func (w *world) create(name string) *corev1.Pod {
	w.t.Helper()
	pod, err := w.pods.Create(w.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{wanted: "yes"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "busybox"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return pod
}

func TestEveryPodHasItsCard(t *testing.T) {
	s := gatewaytest.StartControl(t, nil)
	client, err := sdk.Dial(s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	w := &world{
		t: t, changed: make(chan struct{}, 1),
		pods: sdk.For[*corev1.Pod](client).Namespace("default"), cards: sdk.For[*corev1.ConfigMap](client).Namespace("default"),
		changes: sdk.NewCache(sdk.For[*corev1.ConfigMap](client), sdk.CacheOptions[*corev1.ConfigMap]{}),
	}
	w.changes.OnChange(func(sdk.Change[*corev1.ConfigMap]) {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	})
	before := w.create("before")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- w.changes.Run(ctx) }()
	go func() { ended <- run(ctx, client) }()
	defer func() {
		stop()
		for range cap(ended) {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("ended: %v", err)
			}
		}
	}()

	w.eventually("a pod that was there gets its card", func() bool { return w.card("before") != nil })
	if owner := w.card("before").OwnerReferences[0]; owner.UID != before.UID || owner.Kind != "Pod" {
		t.Errorf("it belongs to %v", owner)
	}
	uid := w.card("before").UID
	if err := w.cards.Delete(ctx, "before-card", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("a card that is taken away comes back", func() bool { c := w.card("before"); return c != nil && c.UID != uid })
	if _, err := w.cards.Modify(ctx, "before-card", func(c *corev1.ConfigMap) error { c.Data["node"] = "forged"; return nil }); err != nil {
		t.Fatal(err)
	}
	w.eventually("a forged card is put right", func() bool { return w.card("before").Data["node"] == "" })

	s.Down() // the agent is killed
	s.Up()
	for i := range 5 {
		w.create(fmt.Sprintf("after-%d", i))
	}
	w.eventually("pods made after it was away get their cards", func() bool {
		for i := range 5 {
			if w.card(fmt.Sprintf("after-%d", i)) == nil {
				return false
			}
		}
		return true
	})
	for _, name := range []string{"before", "after-3"} {
		if err := w.pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("a card goes with its pod", func() bool { return w.card("before") == nil && w.card("after-3") == nil })
	if w.card("after-0") == nil {
		t.Error("another's card went too")
	}
}
