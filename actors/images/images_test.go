package images_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/actors/actortest"
	"github.com/troupe-sh/troupe/actors/images"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// shelf is a feed with secrets.
type shelf map[string]*corev1.Secret

func (s shelf) Sources(*corev1.Pod) (api.Sources, error) { return api.Sources{Secrets: s}, nil }

var alice = container.Auth{Username: "alice", Password: "a"}

func run(t *testing.T, body func(k *actortest.Kit, r *fake.Runtime)) {
	t.Helper()
	r := fake.New(fake.Options{})
	secrets := shelf{
		"right": {Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{
			corev1.DockerConfigJsonKey: []byte(`{"auths": {"docker.io": {"username": "alice", "password": "a"}}}`),
		}},
		"wrong": {Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{
			corev1.DockerConfigKey: []byte(`{"docker.io": {"username": "alice", "password": "b"}}`),
		}},
		"broken": {Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{corev1.DockerConfigKey: []byte(`{`)}},
	}
	actortest.Run(t, func() actor.Actor {
		return images.New(images.Config{Kernel: mailbox.Real(), Log: slog.New(slog.DiscardHandler), Runtime: r, Feed: secrets})()
	}, func(k *actortest.Kit) {
		for _, who := range []string{"asker", "other", "third"} {
			k.Play(who, nil)
		}
		body(k, r)
	})
}

// find is a question by a policy, IfNotPresent if none is given, of a pod with secrets.
func find(name string, policy corev1.PullPolicy, secrets ...string) pod.FindImage {
	p := &corev1.Pod{}
	for _, s := range secrets {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: s})
	}
	if policy == "" {
		policy = corev1.PullIfNotPresent
	}
	return pod.FindImage{Name: name, Policy: policy, Pod: p}
}

// heard is what a played actor was told, in words.
func heard(k *actortest.Kit, path string) string {
	var out []string
	for _, m := range k.Messages(path) {
		switch m := m.(type) {
		case pod.ImagePulling:
			out = append(out, strings.Join(append([]string{"pulling"}, m.Lacking...), " "))
		case pod.ImageStep:
			out = append(out, fmt.Sprintf("%d of %d", m.Step.BytesHere, m.Step.Bytes))
		case pod.ImageFound:
			switch {
			case m.Err != nil:
				for _, kind := range []error{container.ErrNotFound, container.ErrDenied, container.ErrUnreachable, container.ErrGone, container.ErrInvalid} {
					if errors.Is(m.Err, kind) {
						out = append(out, kind.Error())
					}
				}
			case m.Asked:
				out = append(out, fmt.Sprintf("pulled in %s", m.Took))
			default:
				out = append(out, "present")
			}
			if m.Err == nil && m.Image.ID == "" {
				out = append(out, "without an ID")
			}
		default:
			out = append(out, fmt.Sprintf("%T", m))
		}
	}
	return strings.Join(out, ", ")
}

func expect(t *testing.T, k *actortest.Kit, who, want string) {
	t.Helper()
	if got := heard(k, who); got != want {
		t.Errorf("%s heard %q, want %q", who, got, want)
	}
}

func TestByPolicy(t *testing.T) {
	const always, ifNotPresent, never = corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever
	absent := func(*fake.Runtime) {}
	loaded := func(r *fake.Runtime) { r.AddImage("app:1", fake.Behaviour{}) }
	offered := func(r *fake.Runtime) { r.Offer("app:1", fake.Offer{}) }
	pulled := func(a container.Auth) func(r *fake.Runtime) {
		return func(r *fake.Runtime) {
			r.Offer("app:1", fake.Offer{Auth: a})
			if _, err := r.Pull(t.Context(), "app:1", a, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	then := func(all ...func(*fake.Runtime)) func(r *fake.Runtime) {
		return func(r *fake.Runtime) {
			for _, f := range all {
				f(r)
			}
		}
	}
	away := func(r *fake.Runtime) { r.SetRegistry(false) }
	anyone := container.Auth{}
	for _, c := range []struct {
		name    string
		world   func(*fake.Runtime)
		policy  corev1.PullPolicy
		secrets []string
		want    string
	}{
		{"absent", offered, ifNotPresent, nil, "pulling, pulled in 0s"},
		{"absent, always", offered, always, nil, "pulling, pulled in 0s"},
		{"absent, never", offered, never, nil, "not found"},
		{"absent, and no registry", absent, ifNotPresent, nil, "pulling, unreachable"},
		{"loaded", then(loaded, offered), ifNotPresent, nil, "present"},
		{"loaded, never", loaded, never, nil, "present"},
		{"loaded is enough for always, without a registry", loaded, always, nil, "present"},
		{"loaded is enough for always, with a registry", then(loaded, offered), always, nil, "present"},
		{"pulled", then(pulled(anyone), away), ifNotPresent, nil, "present"},
		{"pulled, never", pulled(anyone), never, nil, "present"},
		{"pulled, always", pulled(anyone), always, nil, "pulling, pulled in 0s"},
		{"pulled, always, and no registry", then(pulled(anyone), away), always, nil, "pulling, unreachable"},
		{"for alice, by her", pulled(alice), ifNotPresent, []string{"right"}, "present"},
		{"for alice, by another", pulled(alice), ifNotPresent, nil, "pulling, denied"},
		{"for alice, never by another", pulled(alice), never, nil, "not found"},
		{"with a secret", then(pulled(alice), func(r *fake.Runtime) { _ = r.RemoveImage(t.Context(), "app:1") }), ifNotPresent, []string{"right"}, "pulling, pulled in 0s"},
		{"with a wrong secret first", pulled(alice), always, []string{"wrong", "right"}, "pulling, pulled in 0s"},
		{"with a wrong secret", pulled(alice), always, []string{"wrong"}, "pulling, denied"},
		{"with a secret that is not there", pulled(alice), always, []string{"missing", "right"}, "pulling missing, pulled in 0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(k *actortest.Kit, r *fake.Runtime) {
				c.world(r)
				k.TellFrom("asker", find("app:1", c.policy, c.secrets...))
				expect(t, k, "asker", c.want)
			})
		})
	}
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		offered(r)
		k.TellFrom("asker", find("app:1", ifNotPresent, "broken"))
		got := k.Messages("asker")
		if m := got[len(got)-1].(pod.ImageFound); m.Err == nil || !strings.Contains(m.Err.Error(), "imagePullSecrets") {
			t.Errorf("a secret that is none: %+v", m)
		}
	})
}

func TestOnePullForAll(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		r.Offer("app:1", fake.Offer{Takes: 4 * time.Second})
		k.TellFrom("asker", find("app:1", ""))
		k.Advance(time.Second)
		k.TellFrom("other", find("app:1", corev1.PullAlways))
		k.TellFrom("asker", find("app:1", "")) // asks again
		k.Advance(3 * time.Second)
		expect(t, k, "asker", "pulling, pulled in 4s")
		expect(t, k, "other", "pulling, pulled in 4s")
		if n := r.Calls("Pull"); n != 1 {
			t.Errorf("%d pulls", n)
		}
	})
}

func TestOthersCredentialsAreAnotherPullOfTheSameImage(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		r.Offer("app:1", fake.Offer{Takes: 4 * time.Second, Auth: alice})
		k.TellFrom("asker", find("app:1", "", "right"))
		k.TellFrom("other", find("app:1", ""))
		k.Advance(time.Second)
		expect(t, k, "other", "pulling")
		k.Advance(3 * time.Second)
		expect(t, k, "asker", "pulling, pulled in 4s")
		expect(t, k, "other", "denied")
	})
}

func TestSeveralPullsAtOnceAndTheOthersInTurn(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		var all []string
		for n := range 6 {
			who, image := fmt.Sprint("a", n), fmt.Sprintf("app:%d", n)
			r.Offer(image, fake.Offer{Takes: 4 * time.Second})
			k.Play(who, nil)
			k.TellFrom(who, find(image, ""))
			all = append(all, who)
		}
		k.Advance(4 * time.Second)
		for _, who := range all[:4] {
			expect(t, k, who, "pulling, pulled in 4s")
		}
		k.Advance(4 * time.Second)
		for _, who := range all[4:] {
			expect(t, k, who, "pulling, pulled in 4s")
		}
	})
}

func TestWhatNobodyWantsIsNoLongerPulled(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		for n := range 6 {
			r.Offer(fmt.Sprintf("app:%d", n), fake.Offer{Takes: time.Hour})
		}
		r.Offer("quick:1", fake.Offer{Takes: time.Second})
		for n := range 4 {
			who := fmt.Sprint("a", n)
			k.Play(who, nil)
			k.TellFrom(who, find(fmt.Sprintf("app:%d", n), ""))
		}
		k.TellFrom("asker", find("app:4", "")) // has to wait
		k.TellFrom("other", find("quick:1", ""))
		k.TellFrom("asker", find("app:0", "")) // wants another one
		k.Advance(2 * time.Second)
		expect(t, k, "other", "pulling")
		k.TellFrom("asker", find("app:5", ""))
		_ = k.Root().StopFuture(k.PID("a0")).Wait()
		k.Advance(2 * time.Second)
		if got := heard(k, "other"); got != "pulled in 1s" {
			t.Errorf("the one whose turn came: %q", got)
		}
		if _, err := r.Image(t.Context(), "app:0"); !errors.Is(err, container.ErrNotFound) {
			t.Errorf("what nobody wants any more: %v", err)
		}
		k.Play("a0", nil)
	})
}

func TestAbsentUntilItComes(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		k.TellFrom("asker", find("app:1", corev1.PullNever))
		k.TellFrom("other", find("app:1", ""))
		k.TellFrom("third", find("app:2", corev1.PullAlways))
		expect(t, k, "asker", "not found")
		expect(t, k, "other", "pulling, unreachable")
		expect(t, k, "third", "pulling, unreachable")
		k.Tell(pod.ImagesLoaded{}) // of others
		for _, who := range []string{"asker", "other", "third"} {
			expect(t, k, who, "")
		}
		r.AddImage("app:1", fake.Behaviour{})
		r.AddImage("app:2", fake.Behaviour{})
		k.Tell(pod.ImagesLoaded{})
		for _, who := range []string{"asker", "other", "third"} {
			expect(t, k, who, "present")
		}
		k.Tell(pod.ImagesLoaded{})
		expect(t, k, "asker", "")
	})
}

func TestAPullOfOneIsNewsForAnother(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		k.TellFrom("asker", find("app:1", ""))
		expect(t, k, "asker", "pulling, unreachable")
		r.Offer("app:1", fake.Offer{})
		k.TellFrom("other", pod.PullImage{Name: "app:1"})
		expect(t, k, "other", "pulling, pulled in 0s")
		expect(t, k, "asker", "present")
	})
}

func TestAPullThatIsWatched(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		r.AddImage("app:1", fake.Behaviour{}) // does not count
		r.Offer("app:1", fake.Offer{Takes: time.Second, Size: 400})
		k.TellFrom("asker", pod.PullImage{Name: "app:1"})
		k.Advance(900 * time.Millisecond)
		got := heard(k, "asker")
		if !strings.HasPrefix(got, "pulling, ") || !strings.HasSuffix(got, "of 400") {
			t.Errorf("heard %q", got)
		}
		k.Advance(time.Minute)
		if got := heard(k, "asker"); !strings.HasSuffix(got, "pulled in 1s") {
			t.Errorf("heard %q", got)
		}
		k.TellFrom("other", pod.PullImage{Name: "none:1"})
		expect(t, k, "other", "pulling, not found")
		r.Offer("none:1", fake.Offer{})
		k.TellFrom("third", find("none:1", ""))
		expect(t, k, "third", "pulling, pulled in 0s")
		expect(t, k, "other", "") // it has had its answer
	})
}

func TestAFailureIsAnAnswer(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		r.AddImage("app:1", fake.Behaviour{})
		r.Inject(fake.Fault{Method: "Image", Err: container.ErrGone})
		for _, want := range []string{"runtime gone", "present"} {
			k.TellFrom("asker", find("app:1", ""))
			expect(t, k, "asker", want)
		}
	})
}

func TestARestartForgetsWhoWaits(t *testing.T) {
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		r.Offer("app:1", fake.Offer{Takes: time.Second})
		k.TellFrom("asker", find("app:1", ""))
		expect(t, k, "asker", "pulling")
		k.Crash()
		k.Advance(time.Minute)
		expect(t, k, "asker", "")
		if found, err := r.Images(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("its pull went on: %v, %v", found, err)
		}
		k.TellFrom("asker", find("app:1", ""))
		k.Advance(time.Second)
		expect(t, k, "asker", "pulling, pulled in 1s")
	})
}

// here are the names of the images on the machine.
func here(t *testing.T, r *fake.Runtime) string {
	t.Helper()
	all, err := r.Images(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range all {
		for _, n := range i.Names {
			names = append(names, strings.TrimPrefix(n, "docker.io/library/"))
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestAFullDiskCostsTheImagesThatNobodyUses(t *testing.T) {
	const mib = 1 << 20 // the size of each image
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		ctx := context.Background()
		for _, image := range []string{"oldest:1", "used:1", "wanted:1", "middle:1"} {
			r.AddImage(image, fake.Behaviour{})
			k.Advance(time.Minute)
		}
		if err := errors.Join(
			r.Configure(ctx, container.Network{PodCIDR: netip.MustParsePrefix("10.1.0.0/24")}),
			func() error { _, err := r.RunSandbox(ctx, container.SandboxSpec{ID: "p"}); return err }(),
			r.Create(ctx, container.Spec{ID: "c", Sandbox: "p", Image: "used:1"}),
		); err != nil {
			t.Fatal(err)
		}
		k.Advance(2 * time.Minute)
		k.TellFrom("asker", find("wanted:1", ""))
		r.AddImage("new:1", fake.Behaviour{})
		r.SetDisk(container.Disk{Size: 100 * mib, Free: 16 * mib})
		k.Tell(pod.ImagesLoaded{})
		if got := here(t, r); got != "middle:1 new:1 oldest:1 used:1 wanted:1" {
			t.Errorf("below the threshold: %s", got)
		}
		r.SetDisk(container.Disk{Size: 100 * mib, Free: 15 * mib}) // 85 % full: five have to go
		r.AddImage("another:1", fake.Behaviour{})
		k.Tell(pod.ImagesLoaded{})
		if got := here(t, r); got != "another:1 new:1 used:1 wanted:1" {
			t.Errorf("those that came or were wanted a moment ago, and the one in use, stay: %s", got)
		}
		k.Advance(5 * time.Minute)
		if got := here(t, r); got != "used:1" {
			t.Errorf("when they are old: %s", got)
		}
		if err := r.Remove(ctx, "c"); err != nil {
			t.Fatal(err)
		}
		k.Advance(5 * time.Minute) // it was seen in use five minutes ago
		if got := here(t, r); got != "" {
			t.Errorf("once it is not used: %s", got)
		}
	})
}

func TestNoMoreIsRemovedThanHasToBe(t *testing.T) {
	const mib = 1 << 20
	run(t, func(k *actortest.Kit, r *fake.Runtime) {
		for _, image := range []string{"b:1", "a:1", "c:1"} {
			r.AddImage(image, fake.Behaviour{})
			k.Advance(time.Second)
		}
		k.TellFrom("asker", find("b:1", "")) // the first that came is used last
		k.Advance(3 * time.Minute)
		r.SetDisk(container.Disk{Size: 20 * mib, Free: 2 * mib}) // two have to go
		r.Inject(fake.Fault{Method: "RemoveImage", Err: container.ErrBusy})
		k.Tell(pod.ImagesLoaded{})
		if got := here(t, r); got != "a:1 b:1" {
			t.Errorf("the others go when one cannot: %s", got)
		}
		r.SetDisk(container.Disk{Size: 20 * mib, Free: 3 * mib})
		k.Tell(pod.ImagesLoaded{})
		if got := here(t, r); got != "b:1" {
			t.Errorf("and that one later: %s", got)
		}
	})
}
