package nodetest_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/actors/nodetest"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
)

var (
	seed  = flag.Uint64("seed", 0, "the only seed to run; 0: all")
	seeds = flag.Uint64("seeds", 20, "how many seeds to run")
)

// TestAnythingMayHappen does random things to a machine and its pods. When
// peace returns, what is wished is what is, and nothing else.
func TestAnythingMayHappen(t *testing.T) {
	first, last := uint64(1), *seeds
	if *seed != 0 {
		first, last = *seed, *seed
	}
	for n := first; n <= last; n++ {
		t.Run(fmt.Sprintf("seed %d", n), func(t *testing.T) {
			nodetest.Run(t, func(w *nodetest.World) { chaos(t, w, rand.New(rand.NewPCG(n, 0))) })
		})
	}
}

var methods = []string{"RunSandbox", "RemoveSandbox", "Sandboxes", "Create", "Start", "Signal", "Remove", "Container", "Containers", "Image", "Configure", "Version"}

func chaos(t *testing.T, w *nodetest.World, r *rand.Rand) {
	w.Runtime.AddImage("deaf:1", fake.Behaviour{IgnoreTERM: true})
	w.Runtime.AddImage("crash:1", fake.Behaviour{Exits: true, ExitAfter: 3 * time.Second, ExitCode: 1})
	w.Runtime.AddImage("job:1", fake.Behaviour{Exits: true, ExitAfter: 30 * time.Second})
	w.Runtime.AddImage("slow:1", fake.Behaviour{TermAfter: 7 * time.Second})
	images := []string{nodetest.Image, nodetest.Image, "deaf:1", "crash:1", "job:1", "slow:1"}
	policies := []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}
	var names []string
	pick := func() *corev1.Pod {
		if len(names) == 0 {
			return nil
		}
		return w.Pod(names[r.IntN(len(names))])
	}
	some := func() string {
		if all := w.Containers(); len(all) > 0 {
			return all[r.IntN(len(all))].ID
		}
		return ""
	}
	gone := false
	back := func() {
		if gone {
			w.Runtime.Reconnect()
			gone = false
		}
	}
	for range 60 {
		p := pick()
		switch k := r.IntN(14); {
		case k < 3 && len(names) < 12:
			name := fmt.Sprintf("p%d", len(names))
			names = append(names, name)
			image, policy := images[r.IntN(len(images))], policies[r.IntN(len(policies))]
			w.Make(nodetest.Pod(name, nodetest.Policy(policy), func(p *corev1.Pod) {
				p.Spec.Containers[0].Image = image
				if r.IntN(2) == 0 {
					second := p.Spec.Containers[0]
					second.Name = "b"
					p.Spec.Containers = append(p.Spec.Containers, second)
				}
			}))
		case k == 3 && p != nil:
			w.DeletePod(p.Name, []time.Duration{-1, 0, 5 * time.Second, time.Minute}[r.IntN(4)])
		case k == 4 && !gone:
			w.Runtime.Exit(some(), uint32(r.IntN(2)))
		case k == 5 && !gone:
			w.Runtime.RemoveBehind(some())
		case k == 6 && p != nil && !gone:
			w.Runtime.BreakSandbox(string(p.UID))
		case k == 7 && p != nil && !gone:
			if err := w.Runtime.RemoveSandbox(t.Context(), string(p.UID)); err != nil && !errors.Is(err, errInjected) {
				t.Fatal(err)
			}
		case k == 8:
			if back(); r.IntN(2) == 0 {
				w.Runtime.Disconnect()
				gone = true
			}
		case k == 9:
			w.Runtime.Inject(fake.Fault{
				Method: methods[r.IntN(len(methods))], Done: r.IntN(2) == 0,
				Err: []error{errInjected, fmt.Errorf("%w: %w", errInjected, container.ErrGone), fmt.Errorf("%w: %w", errInjected, container.ErrBusy)}[r.IntN(3)],
			})
		case k == 10:
			paths := w.Actors()
			if path := paths[r.IntN(len(paths))]; path != "node" {
				w.Crash(path)
			}
		case k == 11:
			if r.IntN(3) > 0 {
				w.RestartAgent()
				break
			}
			w.StopAgent()
			back()
			w.Runtime.Reboot()
			w.Disk.Reboot()
			w.Advance(time.Duration(r.IntN(100)) * time.Second)
			w.StartAgent()
		case k == 12:
			w.Volumes.Fail(r.IntN(3))
		}
		w.Advance([]time.Duration{0, time.Millisecond, time.Second, 13 * time.Second, 200 * time.Second}[r.IntN(5)])
	}
	back()
	w.Advance(20 * time.Minute)
	for _, name := range names {
		p := w.Pod(name)
		if p == nil {
			continue
		}
		state, image := nodetest.State(p), p.Spec.Containers[0].Image
		switch {
		case p.DeletionTimestamp != nil:
			t.Errorf("%s is still there: %s", name, state)
		case image == "crash:1" || image == "job:1" || p.Spec.RestartPolicy != corev1.RestartPolicyAlways:
			if p.Status.Phase == corev1.PodPending {
				t.Errorf("%s (%s, %s): %s", name, image, p.Spec.RestartPolicy, state)
			}
		case p.Status.Phase != corev1.PodRunning || strings.Count(state, " ready") != len(p.Spec.Containers):
			t.Errorf("%s (%s): %s", name, image, state)
		}
	}
	for _, c := range w.Containers() {
		if p := w.Pod(c.Pod.Name); p == nil || string(p.UID) != c.Pod.UID {
			t.Errorf("nobody wants container %s", c.ID)
		}
	}
	for _, name := range names {
		if w.Pod(name) != nil {
			w.DeletePod(name, -1)
		}
	}
	w.Advance(20 * time.Minute)
	for _, name := range names {
		w.Want(name, "gone")
	}
	w.Nothing()
}

var errInjected = errors.New("input/output error")
