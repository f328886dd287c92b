package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
	"github.com/troupe-sh/troupe/sdk"
)

// example is what stands in for a test where an agent is started for an example.
type example struct{ ends []func() }

func (*example) Helper()                   {}
func (*example) Errorf(f string, a ...any) { log.Printf(f, a...) }
func (*example) Fatal(a ...any)            { log.Panic(a...) }
func (*example) Fatalf(f string, a ...any) { log.Panicf(f, a...) }
func (e *example) Cleanup(f func())        { e.ends = append(e.ends, f) }
func (*example) Output() io.Writer         { return io.Discard }

func (e *example) TempDir() string {
	dir, err := os.MkdirTemp("", "sdk")
	if err != nil {
		log.Panic(err)
	}
	e.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// agent starts one, and returns its socket (on a machine /run/troupe/troupe.sock).
func agent() (socket string, stop func()) {
	e := &example{}
	s := gatewaytest.Start(e, nil)
	return s.Socket, func() {
		for i := range e.ends {
			e.ends[len(e.ends)-1-i]()
		}
	}
}

func Example() {
	socket, stop := agent()
	defer stop()
	ctx := context.Background()

	client, err := sdk.Dial(socket)
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()
	pods := sdk.For[*corev1.Pod](client).Namespace("default")
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "nginx", Image: "nginx"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(pod.Name, pod.Status.Phase, pod.Spec.RestartPolicy)

	_, err = pods.Get(ctx, "db", metav1.GetOptions{})
	fmt.Println(errors.Is(err, sdk.ErrNotFound), err)
	// Output:
	// web Pending Always
	// true pods "db" not found
}

func ExampleError() {
	socket, stop := agent()
	defer stop()
	client, err := sdk.Dial(socket)
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()

	_, err = sdk.For[*corev1.Pod](client).Namespace("default").Create(context.Background(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "nginx"}}, RestartPolicy: "Sometimes"},
	}, metav1.CreateOptions{})
	var refused *sdk.Error
	if errors.Is(err, sdk.ErrInvalid) && errors.As(err, &refused) {
		for _, c := range refused.Causes() {
			fmt.Printf("%s: %s\n", c.Field, c.Message)
		}
	}
	// Output:
	// spec.containers[0].image: Required value
	// spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
}

func ExampleObjects_All() {
	socket, stop := agent()
	defer stop()
	client, err := sdk.Dial(socket)
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()
	ctx := context.Background()

	maps := sdk.For[*corev1.ConfigMap](client).Namespace("default")
	for _, name := range []string{"a", "b", "c"} {
		if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			log.Panic(err)
		}
	}
	for m, err := range maps.All(ctx, metav1.ListOptions{Limit: 2}) { // two at a time
		if err != nil {
			log.Panic(err)
		}
		fmt.Println(m.Name)
	}
	// Output:
	// a
	// b
	// c
}

func ExampleObjects_Apply() {
	socket, stop := agent()
	defer stop()
	client, err := sdk.Dial(socket)
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()

	maps := sdk.For[*corev1.ConfigMap](client).Namespace("default")
	wanted := applycorev1.ConfigMap("motd", "default").WithData(map[string]string{"text": "hello"})
	m, err := maps.Apply(context.Background(), wanted, metav1.ApplyOptions{FieldManager: "greeter"})
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(m.Data["text"], m.ManagedFields[0].Manager)
	// Output: hello greeter
}

func ExampleObjects_Watch() {
	socket, stop := agent()
	defer stop()
	client, err := sdk.Dial(socket)
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()
	ctx := context.Background()

	maps := sdk.For[*corev1.ConfigMap](client).Namespace("default")
	m, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "motd"}}, metav1.CreateOptions{})
	if err != nil {
		log.Panic(err)
	}
	m.Data = map[string]string{"text": "hello"}
	if _, err := maps.Update(ctx, m, metav1.UpdateOptions{}); err != nil {
		log.Panic(err)
	}
	if err := maps.Delete(ctx, "motd", metav1.DeleteOptions{}); err != nil {
		log.Panic(err)
	}
	for e, err := range maps.Watch(ctx, metav1.ListOptions{ResourceVersion: m.ResourceVersion}) {
		if err != nil {
			log.Panic(err)
		}
		fmt.Println(e.Type, e.Object.Name, e.Object.Data)
		if e.Type == "DELETED" {
			break
		}
	}
	// Output:
	// MODIFIED motd map[text:hello]
	// DELETED motd map[text:hello]
}

func ExampleCache() {
	socket, stop := agent()
	defer stop()
	client, err := sdk.Dial(socket)
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	maps := sdk.For[*corev1.ConfigMap](client)
	cache := sdk.NewCache(maps, sdk.CacheOptions[*corev1.ConfigMap]{LabelSelector: "app"})
	changes := make(chan string, 1)
	cache.OnChange(func(c sdk.Change[*corev1.ConfigMap]) {
		changes <- fmt.Sprint(c.Type, " ", c.Object().Name)
	})
	go cache.Run(ctx)
	if err := cache.WaitSynced(ctx); err != nil {
		log.Panic(err)
	}
	_, err = maps.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "motd", Labels: map[string]string{"app": "web"}},
	}, metav1.CreateOptions{})
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(<-changes)
	fmt.Println(len(cache.List("default", labels.Everything())))
	// Output:
	// ADDED motd
	// 1
}

func ExampleWithWarnings() {
	socket, stop := agent()
	defer stop()
	client, err := sdk.Dial(socket)
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()

	ctx := sdk.WithWarnings(context.Background(), func(w string) { fmt.Println("warning:", w) })
	_, err = sdk.For[*corev1.Pod](client).Namespace("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "nginx", Image: "nginx", Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}},
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		log.Panic(err)
	}
	// Output:
	// warning: spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply
}
