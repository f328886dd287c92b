// Controller is an example of a controller of one's own, written with the SDK:
// beside every pod with the label example.com/card it keeps a ConfigMap that
// says where the pod runs. The ConfigMap belongs to the pod, so it goes with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/sdk"
)

const (
	wanted = "example.com/card"    // a pod with it gets a card
	cardOf = "example.com/card-of" // a card has it: the pod's name
)

func main() {
	socket := flag.String("socket", "/run/troupe/troupe.sock", "where the agent listens")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := sdk.Dial(*socket)
	if err == nil {
		err = run(ctx, client)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		slog.Error("the controller ends", "error", err)
		os.Exit(1)
	}
}

// controller compares the pods with their cards, one pod at a time.
type controller struct {
	pods  *sdk.Cache[*corev1.Pod]
	cards *sdk.Cache[*corev1.ConfigMap]
	write sdk.Objects[*corev1.ConfigMap]

	mu    sync.Mutex
	due   map[types.NamespacedName]bool // pods to look at
	woken chan struct{}
}

func run(ctx context.Context, client *sdk.Client) error {
	c := &controller{
		pods:  sdk.NewCache(sdk.For[*corev1.Pod](client), sdk.CacheOptions[*corev1.Pod]{LabelSelector: wanted}),
		cards: sdk.NewCache(sdk.For[*corev1.ConfigMap](client), sdk.CacheOptions[*corev1.ConfigMap]{LabelSelector: cardOf}),
		write: sdk.For[*corev1.ConfigMap](client),
		due:   map[types.NamespacedName]bool{}, woken: make(chan struct{}, 1),
	}
	c.pods.OnChange(func(ch sdk.Change[*corev1.Pod]) { c.lookAt(ch.Object().Namespace, ch.Object().Name) })
	c.cards.OnChange(func(ch sdk.Change[*corev1.ConfigMap]) { c.lookAt(ch.Object().Namespace, ch.Object().Labels[cardOf]) })
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(c.pods.Run(ctx)) }()
	go func() { cancel(c.cards.Run(ctx)) }()
	if err := errors.Join(c.pods.WaitSynced(ctx), c.cards.WaitSynced(ctx)); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.woken:
		}
		for _, pod := range c.take() {
			if err := c.reconcile(ctx, pod); err != nil {
				slog.Warn("will try again", "pod", pod, "error", err)
				time.AfterFunc(time.Second, func() { c.lookAt(pod.Namespace, pod.Name) })
			}
		}
	}
}

// lookAt notes that something changed about a pod. However often it is called,
// the pod is looked at once, as it stands then.
func (c *controller) lookAt(namespace, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due[types.NamespacedName{Namespace: namespace, Name: name}] = true
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

func (c *controller) take() (pods []types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for pod := range c.due {
		pods = append(pods, pod)
	}
	clear(c.due)
	return pods
}

// reconcile writes a pod's card, unless it is right. Of a pod that is gone there
// is nothing to do: its card belongs to it.
func (c *controller) reconcile(ctx context.Context, key types.NamespacedName) error {
	pod, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok || pod.DeletionTimestamp != nil {
		return nil
	}
	card := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name + "-card",
			Labels:          map[string]string{cardOf: key.Name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		},
		Data: map[string]string{"node": pod.Spec.NodeName, "ip": pod.Status.PodIP, "phase": string(pod.Status.Phase)},
	}
	is, ok := c.cards.Get(card.Namespace, card.Name)
	if ok && maps.Equal(is.Data, card.Data) && slices.Equal(is.OwnerReferences, card.OwnerReferences) {
		return nil
	}
	if _, err := c.write.Apply(ctx, card, metav1.ApplyOptions{FieldManager: "cards", Force: true}); err != nil {
		return fmt.Errorf("card of %s: %w", key, err)
	}
	return nil
}
