package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/gateway/agent"
	"github.com/troupe-sh/troupe/messages"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/fake"
	"github.com/troupe-sh/troupe/sdk"
)

// tree is one supervision tree with two actors.
type tree struct{ failed []string }

func (t *tree) Actors() []supervise.Status {
	return []supervise.Status{
		{Path: "control/pods", Why: "pods' lives", State: supervise.Active, Mailbox: 2},
		{Path: "control", State: supervise.Active, Restarts: 3, LastFailure: "index out of range", LastFailureAt: time.Unix(1700000000, 0)},
	}
}

func (t *tree) Fail(path string) error {
	switch path {
	case "control":
		return errors.New("control is the root")
	case "control/pods":
		t.failed = append(t.failed, path)
		return nil
	case "control/bug":
		panic("a bug")
	}
	return supervise.ErrUnknown
}

func serve(t *testing.T) (*sdk.Client, *tree) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "a.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	tr := &tree{}
	runtime := fake.New(fake.Options{})
	runtime.Offer("web:1", fake.Offer{Size: 3_000_000})
	runtime.Offer("secret:1", fake.Offer{Auth: container.Auth{Username: "alice", Password: "a"}})
	s := &http.Server{Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	s.Handler = agent.New(agent.Deps{
		Version: &messages.Version{Troupe: "v1", Node: "n1"},
		Trees:   func() []agent.Trees { return []agent.Trees{tr} },
		Runtime: runtime,
		Pull: func(ctx context.Context, name string, auth container.Auth, step func(container.Step)) (container.Image, error) {
			step(container.Step{Layers: 2, LayersHere: 1, Bytes: 30, BytesHere: 20})
			return runtime.Pull(ctx, name, auth, nil)
		},
		Log: slog.New(slog.DiscardHandler),
	})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	c, err := sdk.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		s.Close()
		<-served
	})
	return c, tr
}

func TestVersion(t *testing.T) {
	c, _ := serve(t)
	v, err := c.Version(t.Context())
	if err != nil || v.Troupe != "v1" || v.Node != "n1" {
		t.Fatalf("Version: %v, %v", v, err)
	}
}

func TestActors(t *testing.T) {
	c, tr := serve(t)
	actors, err := c.Actors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range actors {
		got = append(got, a.Path)
	}
	if d := cmp.Diff([]string{"control", "control/pods"}, got); d != "" {
		t.Fatalf("paths (-want +got):\n%s", d)
	}
	if a := actors[0]; a.Restarts != 3 || a.LastFailure != "index out of range" || a.LastFailureTime.AsTime().Unix() != 1700000000 {
		t.Errorf("control: %v", a)
	}
	if a := actors[1]; a.Mailbox != 2 || a.State != "Running" || a.LastFailureTime != nil {
		t.Errorf("control/pods: %v", a)
	}

	if err := c.RestartActor(t.Context(), "control/pods"); err != nil || len(tr.failed) != 1 {
		t.Errorf("restart: %v, told %v", err, tr.failed)
	}
	for path, want := range map[string]string{
		"control":      "control is the root",
		"nowhere":      `actor "nowhere": there is none at that path`,
		"control/bug":  "a bug of its own",
		"control/bug2": "there is none",
	} {
		if err := c.RestartActor(t.Context(), path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("restart %s: %v, want %q", path, err, want)
		}
	}
}

func TestImages(t *testing.T) {
	c, _ := serve(t)
	img, err := random.Image(1<<20, 1) // more than one part
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := tarball.Write(name.MustParseReference("docker.io/library/web:1"), img, &archive); err != nil {
		t.Fatal(err)
	}
	loaded, err := c.LoadImage(t.Context(), bytes.NewReader(archive.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded) != 1 || loaded[0].Names[0] != "docker.io/library/web:1" {
		t.Fatalf("loaded %v", loaded)
	}
	present, err := c.Images(t.Context())
	if err != nil || len(present) != 1 || present[0].Id != loaded[0].Id {
		t.Fatalf("images: %v, %v", present, err)
	}
	if err := c.RemoveImage(t.Context(), "web:1"); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveImage(t.Context(), "web:1"); err == nil || !strings.Contains(err.Error(), `image "web:1": not found`) {
		t.Fatalf("remove again: %v", err)
	}
	if _, err := c.LoadImage(t.Context(), strings.NewReader("no archive")); err == nil || !strings.Contains(err.Error(), "load image") {
		t.Fatalf("load of no archive: %v", err)
	}
}

func TestAnArchiveThatCannotBeReadIsNotLoaded(t *testing.T) {
	c, _ := serve(t)
	broken := errors.New("disk broken")
	if _, err := c.LoadImage(t.Context(), io.MultiReader(strings.NewReader("start"), failing{broken})); !errors.Is(err, broken) {
		t.Fatalf("load: %v, want %v", err, broken)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestNobodyAnswers(t *testing.T) {
	c, err := sdk.Dial(filepath.Join(t.TempDir(), "none.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Version(t.Context()); !errors.Is(err, sdk.ErrNoAgent) {
		t.Fatalf("Version: %v", err)
	}
}

func TestPulls(t *testing.T) {
	c, _ := serve(t)
	var steps []string
	i, err := c.PullImage(t.Context(), &messages.PullImage{Name: "web:1"}, func(s *messages.PullStep) {
		steps = append(steps, fmt.Sprintf("%d/%d %d/%d", s.LayersHere, s.Layers, s.BytesHere, s.Bytes))
	})
	if err != nil || !cmp.Equal(i.Names, []string{"docker.io/library/web:1"}) || i.Size != 3_000_000 || !cmp.Equal(steps, []string{"1/2 20/30"}) {
		t.Fatalf("%v, %v; on the way %q", i, err, steps)
	}
	for says, m := range map[string]*messages.PullImage{
		"web:9: not found":          {Name: "web:9"},
		"denied":                    {Name: "secret:1", Username: "bob"},
		"unreachable":               {Name: "nowhere.example/web:1"},
		"couldn't parse image name": {Name: "not a name"},
	} {
		if _, err := c.PullImage(t.Context(), m, nil); err == nil || !strings.Contains(err.Error(), says) || errors.Is(err, sdk.ErrNoAgent) {
			t.Errorf("%s: %v, want %s", m.Name, err, says)
		}
	}
	if i, err := c.PullImage(t.Context(), &messages.PullImage{Name: "secret:1", Username: "alice", Password: "a"}, nil); err != nil || i.Id == "" {
		t.Errorf("with the right password: %v, %v", i, err)
	}
}
