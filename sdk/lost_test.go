package sdk_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/gateway/gatewaytest"
	"github.com/troupe-sh/troupe/sdk"
)

// wire stands between a client and an agent, and can lose what the agent says.
type wire struct {
	listener net.Listener
	agent    string

	mu    sync.Mutex
	deaf  bool
	conns []net.Conn
}

func between(t *testing.T, s *gatewaytest.Server) *wire {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "w"))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, agent: s.Socket}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			agent, err := net.Dial("unix", w.agent)
			if err != nil {
				client.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, client, agent)
			w.mu.Unlock()
			all.Go(func() { w.pass(agent, client, false) })
			all.Go(func() { w.pass(client, agent, true) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.cut()
		all.Wait()
	})
	return w
}

func (w *wire) pass(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		w.mu.Lock()
		lost := w.deaf && answers
		w.mu.Unlock()
		if lost {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// lose has what the agent says from now on lost, or not.
func (w *wire) lose(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = yes
}

// cut breaks all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// written waits until a ConfigMap is in the journal as is says.
func written(t *testing.T, s *gatewaytest.Server, name string, is func(*corev1.ConfigMap) bool) *corev1.ConfigMap {
	t.Helper()
	hub := s.Journal.Hub()
	woken := make(chan struct{}, 1)
	cursor := hub.Subscribe(hub.Seq(), func() { woken <- struct{}{} })
	defer cursor.Close()
	for deadline := time.After(patience); ; {
		var m *corev1.ConfigMap
		if r, ok := hub.Get(api.Key{Resource: "configmaps", Namespace: "default", Name: name}); ok {
			o, err := r.Object()
			if err != nil {
				t.Fatal(err)
			}
			m = o.(*corev1.ConfigMap)
		}
		if is(m) {
			return m
		}
		if _, _, err := cursor.Next(1); err != nil {
			t.Fatal(err)
		}
		select {
		case <-woken:
		case <-deadline:
			t.Fatalf("%s is not written", name)
		}
	}
}

func TestAWriteWhoseAnswerIsLostIsDoneOnce(t *testing.T) {
	s, _ := start(t)
	w := between(t, s)
	maps := sdk.For[*corev1.ConfigMap](dial(t, w.listener.Addr().String())).Namespace("default")
	there := func(m *corev1.ConfigMap) bool { return m != nil }
	gone := func(m *corev1.ConfigMap) bool { return m == nil }
	var now *corev1.ConfigMap
	for _, step := range []struct {
		what string
		do   func() (*corev1.ConfigMap, error)
		is   func(*corev1.ConfigMap) bool
	}{
		{"create", func() (*corev1.ConfigMap, error) {
			return maps.Create(t.Context(), configMap("a"), metav1.CreateOptions{})
		}, there},
		{"update", func() (*corev1.ConfigMap, error) {
			changed := now.DeepCopy()
			changed.Data["a"] = "2"
			return maps.Update(t.Context(), changed, metav1.UpdateOptions{})
		}, func(m *corev1.ConfigMap) bool { return m.Data["a"] == "2" }},
		{"patch", func() (*corev1.ConfigMap, error) {
			return maps.Patch(t.Context(), "a", "application/json-patch+json", []byte(`[{"op":"test","path":"/data/a","value":"2"},{"op":"replace","path":"/data/a","value":"3"}]`), metav1.PatchOptions{})
		}, func(m *corev1.ConfigMap) bool { return m.Data["a"] == "3" }},
		{"delete", func() (*corev1.ConfigMap, error) { return nil, maps.Delete(t.Context(), "a", metav1.DeleteOptions{}) }, gone},
	} {
		if _, err := maps.List(t.Context(), metav1.ListOptions{}); err != nil { // it is connected
			t.Fatal(err)
		}
		w.lose(true)
		answered := make(chan error, 1)
		var got *corev1.ConfigMap
		go func() {
			var err error
			got, err = step.do()
			answered <- err
		}()
		inJournal := written(t, s, "a", step.is)
		w.lose(false)
		w.cut()
		if err := <-answered; err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got != nil && got.ResourceVersion != inJournal.ResourceVersion {
			t.Errorf("%s: written at %s, answered with %s", step.what, inJournal.ResourceVersion, got.ResourceVersion)
		}
		now = got
	}
}

func TestAnOutcomeThatStaysUnknown(t *testing.T) {
	s, _ := start(t)
	w := between(t, s)
	maps := sdk.For[*corev1.ConfigMap](dial(t, w.listener.Addr().String())).Namespace("default")
	if _, err := maps.List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	w.lose(true)
	ctx, cancel := context.WithCancel(sdk.WithID(t.Context(), "mine"))
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		_, err := maps.Create(ctx, configMap("a"), metav1.CreateOptions{})
		answered <- err
	}()
	m := written(t, s, "a", func(m *corev1.ConfigMap) bool { return m != nil })
	w.cut()
	cancel()
	err := <-answered
	if !errors.Is(err, sdk.ErrOutcomeUnknown) || !strings.Contains(err.Error(), `create ConfigMap default/a`) || !strings.Contains(err.Error(), `sdk.WithID(ctx, "mine")`) {
		t.Fatalf("got %v", err)
	}
	w.lose(false)
	again, err := maps.Create(sdk.WithID(t.Context(), "mine"), configMap("a"), metav1.CreateOptions{})
	if err != nil || again.UID != m.UID {
		t.Errorf("asked again: %v", err)
	}
}
