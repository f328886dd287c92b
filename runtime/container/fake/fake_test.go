package fake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/runtime/container/suite"
)

func start(t *testing.T, r *fake.Runtime, b fake.Behaviour) {
	t.Helper()
	r.AddImage("app", b)
	if err := r.Configure(t.Context(), container.Network{PodCIDR: netip.MustParsePrefix("10.1.0.0/29")}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RunSandbox(t.Context(), container.SandboxSpec{ID: "p1"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Create(t.Context(), container.Spec{ID: "c1", Sandbox: "p1", Image: "app"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
}

func TestProcessesEndOnTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fake.New(fake.Options{})
		var heard []container.EventKind
		r.Subscribe(func(e container.Event) { heard = append(heard, e.Kind) })
		start(t, r, fake.Behaviour{Exits: true, ExitAfter: 5 * time.Second, OOM: true})
		time.Sleep(6 * time.Second)
		c, err := r.Container(t.Context(), "c1")
		if err != nil || c.ExitCode != 137 || !c.OOMKilled || c.FinishedAt.Sub(c.StartedAt) != 5*time.Second {
			t.Errorf("container %+v, %v", c, err)
		}
		if want := []container.EventKind{container.ContainerOOM, container.ContainerExited}; !cmp.Equal(heard, want) {
			t.Errorf("heard %v", heard)
		}
	})
}

func TestFaultsHitTheNextCall(t *testing.T) {
	r := fake.New(fake.Options{})
	start(t, r, fake.Behaviour{})
	broken := errors.New("broken")
	r.Inject(fake.Fault{Method: "Remove", Err: broken})
	r.Inject(fake.Fault{Method: "Remove", Err: broken, Done: true})
	if err := r.Remove(t.Context(), "c1"); !errors.Is(err, broken) {
		t.Errorf("Remove: %v", err)
	}
	if _, err := r.Container(t.Context(), "c1"); err != nil {
		t.Errorf("the failed Remove removed it: %v", err)
	}
	if err := r.Remove(t.Context(), "c1"); !errors.Is(err, broken) {
		t.Errorf("Remove: %v", err)
	}
	if _, err := r.Container(t.Context(), "c1"); !errors.Is(err, container.ErrNotFound) {
		t.Errorf("the second Remove did nothing: %v", err)
	}
}

func TestRebootAndDisconnect(t *testing.T) {
	r := fake.New(fake.Options{})
	start(t, r, fake.Behaviour{})
	var heard []container.EventKind
	r.Subscribe(func(e container.Event) { heard = append(heard, e.Kind) })
	r.Disconnect()
	if _, err := r.Containers(t.Context()); !errors.Is(err, container.ErrGone) {
		t.Errorf("Containers of a runtime that is gone: %v", err)
	}
	r.Reboot()
	c, err := r.Container(t.Context(), "c1")
	if err != nil || c.State != container.Exited || c.ExitKnown {
		t.Errorf("container %+v, %v", c, err)
	}
	boxes, err := r.Sandboxes(t.Context())
	if err != nil || len(boxes) != 1 || boxes[0].Ready {
		t.Errorf("sandboxes %+v, %v", boxes, err)
	}
	if want := []container.EventKind{container.Gap}; !cmp.Equal(heard, want) {
		t.Errorf("heard %v", heard)
	}
}

func TestAddressesRestAndRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fake.New(fake.Options{})
		start(t, r, fake.Behaviour{})
		addr := func(id string) netip.Addr {
			s, err := r.RunSandbox(t.Context(), container.SandboxSpec{ID: id})
			if err != nil && !errors.Is(err, container.ErrBusy) {
				t.Fatal(err)
			}
			return s.Addr
		}
		last := addr("p1")
		if err := r.RemoveSandbox(t.Context(), "p1"); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"a", "b", "c", "d"} {
			if a := addr(id); !a.IsValid() || a == last {
				t.Errorf("sandbox %s got %v", id, a)
			}
		}
		if a := addr("e"); a.IsValid() {
			t.Errorf("a network of five gave a sixth address within a minute: %v", a)
		}
		time.Sleep(time.Minute)
		if a := addr("e"); a != last {
			t.Errorf("after a minute: %v, not %v", a, last)
		}
	})
}

func TestSuite(t *testing.T) {
	suite.Run(t, func(t *testing.T) suite.Subject {
		r := fake.New(fake.Options{})
		r.AddImage("busybox", fake.Behaviour{})
		r.Script(script)
		return suite.Subject{
			Runtime: r, Image: "busybox",
			Again: func(*testing.T) container.Runtime { return r },
			Break: func(_ *testing.T, id string) { r.BreakSandbox(id) },
			Offer: func(_ *testing.T, repoTag, version string, auth container.Auth) string {
				r.Offer(repoTag, fake.Offer{Version: version, Auth: auth})
				return "docker.io/" + repoTag
			},
			Archive: func(t *testing.T) io.Reader {
				img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Author: "suite"})
				if err != nil {
					t.Fatal(err)
				}
				tag, err := name.NewTag(suite.Archived)
				if err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				if err := tarball.Write(tag, img, &b); err != nil {
					t.Fatal(err)
				}
				return &b
			},
		}
	})
}

// script behaves as the suite's commands do.
func script(s container.Spec) (fake.Behaviour, bool) {
	b := fake.Behaviour{CPU: 1, Memory: 1 << 20, IgnoreTERM: true, Exec: run}
	switch {
	case slices.Equal(s.Command, suite.Exit3):
		b.Exits, b.ExitCode = true, 3
	case slices.Equal(s.Command, suite.OnTERM7):
		b.IgnoreTERM, b.TermCode = false, 7
	case slices.Equal(s.Command, suite.Missing):
		b.FailStart = fmt.Errorf("exec %s: %w", s.Command[0], container.ErrInvalid)
	}
	return b, true
}

func run(ctx context.Context, e container.ExecSpec) (int, error) {
	switch {
	case slices.Equal(e.Command, suite.Complain):
		_, err := io.Copy(e.Stdout, e.Stdin)
		fmt.Fprintln(e.Stderr, "bad")
		return 5, err
	case slices.Equal(e.Command, suite.Missing):
		return 0, container.ErrInvalid
	case slices.Equal(e.Command, suite.Forever):
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 0, nil
}
