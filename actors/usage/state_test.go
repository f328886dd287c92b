package usage

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/host"
	"github.com/troupe-sh/troupe/runtime/pod"
)

var began = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func at(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }

// used is a container of the pod p at a second; CPU in milliseconds.
func used(p, name string, started, now, cpu int, memory int64) container.Usage {
	return container.Usage{
		Pod: container.Pod{UID: p}, Name: name, StartedAt: at(started), At: at(now), CPU: time.Duration(cpu) * time.Millisecond, Memory: memory,
	}
}

func TestTwoLooks(t *testing.T) {
	const long = -1000 // started that long ago
	one := func(name string, cpu, memory int64, now, window int) pod.PodUsage {
		return pod.PodUsage{At: at(now), Window: time.Duration(window) * time.Second, Containers: []pod.ContainerUsage{{
			Name: name, Rates: pod.Rates{CPU: cpu, Memory: memory, At: at(now), Window: time.Duration(window) * time.Second},
		}}}
	}
	for name, c := range map[string]struct {
		looks [][]container.Usage
		want  map[types.UID]pod.PodUsage
	}{
		"one look at what runs for long says nothing": {
			looks: [][]container.Usage{{used("p", "c", long, 0, 5000, 1)}},
		},
		"two give a rate, and the memory of the last": {
			looks: [][]container.Usage{{used("p", "c", long, 0, 5000, 1)}, {used("p", "c", long, 20, 6000, 7)}},
			want:  map[types.UID]pod.PodUsage{"p": one("c", 50_000_000, 7, 20, 20)},
		},
		"of three the last two count": {
			looks: [][]container.Usage{{used("p", "c", long, 0, 0, 1)}, {used("p", "c", long, 20, 9000, 1)}, {used("p", "c", long, 30, 9000, 1)}},
			want:  map[types.UID]pod.PodUsage{"p": one("c", 0, 1, 30, 10)},
		},
		"the start counts as a look if it was a while ago": {
			looks: [][]container.Usage{{}, {used("p", "c", 5, 15, 5000, 1)}},
			want:  map[types.UID]pod.PodUsage{"p": one("c", 500_000_000, 1, 15, 10)},
		},
		"it does not if it was just now": {
			looks: [][]container.Usage{{}, {used("p", "c", 6, 15, 5000, 1)}},
		},
		"a restarted container begins anew": {
			looks: [][]container.Usage{{used("p", "c", long, 0, 5000, 1)}, {used("p", "c", 14, 15, 6000, 1)}},
		},
		"a pod is not shown in part": {
			looks: [][]container.Usage{
				{used("p", "a", long, 0, 0, 1)},
				{used("p", "a", long, 15, 0, 1), used("p", "b", 14, 15, 0, 1)},
			},
		},
		"nor for a container that has ended": {
			looks: [][]container.Usage{
				{used("p", "a", long, 0, 0, 1), used("p", "b", long, 0, 0, 1)},
				{used("p", "a", long, 15, 1500, 1)},
			},
			want: map[types.UID]pod.PodUsage{"p": one("a", 100_000_000, 1, 15, 15)},
		},
		"a pod that is gone is not shown": {
			looks: [][]container.Usage{{used("p", "c", long, 0, 0, 1)}, {used("p", "c", long, 15, 0, 1)}, {}},
		},
		"the same name of another pod is another": {
			looks: [][]container.Usage{{used("p", "c", long, 0, 0, 1)}, {used("q", "c", long, 15, 0, 1)}},
		},
		"time that stands still and use that shrinks give no rate": {
			looks: [][]container.Usage{
				{used("p", "c", long, 0, 5000, 1), used("q", "c", long, 0, 5000, 1)},
				{used("p", "c", long, 0, 5000, 1), used("q", "c", long, 15, 4000, 1)},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &points{}
			for _, l := range c.looks {
				p = p.add(sample{containers: l})
			}
			want := c.want
			if want == nil {
				want = map[types.UID]pod.PodUsage{}
			}
			if d := cmp.Diff(want, p.usage().Pods); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestContainersAreSortedAndThePodIsAsOldAsTheOldest(t *testing.T) {
	p := &points{}
	p = p.add(sample{containers: []container.Usage{used("p", "b", 0, 100, 0, 1), used("p", "a", 0, 101, 0, 1)}})
	p = p.add(sample{containers: []container.Usage{used("p", "b", 0, 120, 0, 1), used("p", "a", 0, 122, 0, 1)}})
	u := p.usage().Pods["p"]
	if len(u.Containers) != 2 || u.Containers[0].Name != "a" || !u.At.Equal(at(120)) || u.Window != 20*time.Second {
		t.Errorf("%+v", u)
	}
}

func TestTheMachine(t *testing.T) {
	look := func(now, cpu int) sample {
		return sample{node: host.Usage{At: at(now), CPU: time.Duration(cpu) * time.Second, Memory: 9}}
	}
	p := (&points{}).add(look(0, 100))
	if u := p.usage(); u.Node.Window != 0 {
		t.Errorf("after one look: %+v", u.Node)
	}
	p = p.add(look(10, 115))
	want := pod.Rates{CPU: 1_500_000_000, Memory: 9, At: at(10), Window: 10 * time.Second}
	if u := p.usage(); u.Node != want {
		t.Errorf("%+v, want %+v", u.Node, want)
	}
	if p = p.add(look(10, 115)); p.usage().Node != want {
		t.Errorf("after the same look twice: %+v", p.usage().Node)
	}
}
