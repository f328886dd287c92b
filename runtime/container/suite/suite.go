// Package suite is what every implementation of the container runtime port
// must do, the fake included, and what tests of real ones stand in.
package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/troupe-sh/troupe/runtime/container"
)

// Subject is a runtime to be tested, with one image.
type Subject struct {
	Runtime container.Runtime
	// Again is the same runtime as an agent finds it that was killed and started again.
	Again func(t *testing.T) container.Runtime
	// Image is the name of a present image with /bin/sh.
	Image string
	// Archive is an image archive with Archived in it, another image than Image.
	Archive func(t *testing.T) io.Reader
	// Offer puts an image with /bin/sh into a registry as REPOSITORY:TAG, for auth
	// alone if it is not zero, and returns its name. Another version is another image.
	Offer func(t *testing.T, repoTag, version string, auth container.Auth) string
	// Break takes a part of a sandbox away behind the runtime's back.
	Break func(t *testing.T, sandbox string)
}

// Archived is the name of the image in Subject.Archive, in short and in full.
const (
	Archived     = "suite/other:1"
	ArchivedFull = "docker.io/suite/other:1"
)

// Commands that the suite runs in containers, for fakes to know them by.
var (
	Forever  = []string{"/bin/sh", "-c", "while :; do sleep 1; done"}
	Exit3    = []string{"/bin/sh", "-c", "exit 3"}
	OnTERM7  = []string{"/bin/sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.01; done"}
	Missing  = []string{"/does/not/exist"}
	Complain = []string{"/bin/sh", "-c", "cat; echo bad >&2; exit 5"} // its input to its output
)

// Network is what the suite configures.
var Network = container.Network{
	PodCIDR: netip.MustParsePrefix("10.88.3.0/24"), ClusterCIDR: netip.MustParsePrefix("10.88.0.0/16"),
}

// bound is how long anything may take before it counts as never.
const bound = 30 * time.Second

type scene struct {
	*testing.T
	Subject
	ctx  context.Context
	mu   sync.Mutex
	seen []container.Event
	news chan struct{}
}

// Run tests the runtimes that fresh makes, each empty but for its image.
func Run(t *testing.T, fresh func(t *testing.T) Subject) {
	for _, c := range []struct {
		name string
		test func(*scene)
	}{
		{"every method called twice does once", twice},
		{"a container runs and ends with its code", endsWithCode},
		{"signals reach the first process", signals},
		{"a running container is killed and removed", removeRunning},
		{"a command that does not exist is invalid", missingCommand},
		{"what is unknown", unknown},
		{"order of calls", order},
		{"another agent finds everything", adoption},
		{"a broken sandbox is mended", mending},
		{"a sandbox goes with its containers", removeSandbox},
		{"processes executed in a container", execute},
		{"standard input and ports that are not there", refused},
		{"images come and go", images},
		{"images are pulled", pulls},
		{"a registry may refuse", refusals},
		{"usage of what runs", usage},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*bound)
			defer cancel()
			s := &scene{T: t, Subject: fresh(t), ctx: ctx, news: make(chan struct{}, 1)}
			s.must(s.Runtime.Configure(ctx, Network))
			defer s.Runtime.Subscribe(s.hear)()
			c.test(s)
		})
	}
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// is wants an error of a kind.
func (s *scene) is(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: %v, not %q", what, err, want)
	}
}

func (s *scene) hear(e container.Event) {
	s.mu.Lock()
	s.seen = append(s.seen, e)
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// heard waits for an event.
func (s *scene) heard(kind container.EventKind, id string) container.Event {
	s.Helper()
	late := time.After(bound)
	for {
		s.mu.Lock()
		i := slices.IndexFunc(s.seen, func(e container.Event) bool { return e.Kind == kind && e.ContainerID == id })
		var e container.Event
		if i >= 0 {
			e = s.seen[i]
		}
		seen := slices.Clone(s.seen)
		s.mu.Unlock()
		if i >= 0 {
			return e
		}
		select {
		case <-s.news:
		case <-late:
			s.Fatalf("no event %d of %s; heard %+v", kind, id, seen)
		}
	}
}

func (s *scene) times(kind container.EventKind, id string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.seen {
		if e.Kind == kind && e.ContainerID == id {
			n++
		}
	}
	return n
}

func pod(id string) container.SandboxSpec {
	return container.SandboxSpec{ID: id, Pod: container.Pod{Namespace: "default", Name: "pod-" + id, UID: id}, Hostname: "pod-" + id, QOS: "Burstable"}
}

func (s *scene) sandbox(id string) container.Sandbox {
	s.Helper()
	sb, err := s.Runtime.RunSandbox(s.ctx, pod(id))
	s.must(err)
	return sb
}

func (s *scene) spec(sandbox, id string, command []string) container.Spec {
	return container.Spec{
		ID: id, Sandbox: sandbox, Pod: pod(sandbox).Pod, Name: "main", Attempt: 2, Hash: "abc", Image: s.Image, Command: command,
	}
}

func (s *scene) start(sandbox, id string, command []string) {
	s.Helper()
	s.must(s.Runtime.Create(s.ctx, s.spec(sandbox, id, command)))
	s.must(s.Runtime.Start(s.ctx, id))
}

func (s *scene) container(id string) container.Container {
	s.Helper()
	c, err := s.Runtime.Container(s.ctx, id)
	s.must(err)
	return c
}

func twice(s *scene) {
	first := s.sandbox("p1")
	if again := s.sandbox("p1"); again != first {
		s.Errorf("sandbox %+v, then %+v", first, again)
	}
	if !first.Ready || !Network.PodCIDR.Contains(first.Addr) || first.Pod != pod("p1").Pod {
		s.Errorf("sandbox %+v", first)
	}
	for range 2 {
		s.must(s.Runtime.Configure(s.ctx, Network))
		s.must(s.Runtime.Create(s.ctx, s.spec("p1", "c1", OnTERM7)))
	}
	if c := s.container("c1"); c.State != container.Created || c.CreatedAt.IsZero() || !c.StartedAt.IsZero() {
		s.Errorf("created: %+v", c)
	}
	s.must(s.Runtime.Start(s.ctx, "c1"))
	pid := s.container("c1").PID
	s.must(s.Runtime.Start(s.ctx, "c1"))
	if c := s.container("c1"); c.State != container.Running || c.PID != pid || pid == 0 {
		s.Errorf("started twice: %+v, PID was %d", c, pid)
	}
	for range 2 {
		s.must(s.Runtime.Signal(s.ctx, "c1", syscall.SIGKILL))
		s.heard(container.ContainerExited, "c1")
	}
	for range 2 {
		s.must(s.Runtime.Remove(s.ctx, "c1"))
	}
	s.heard(container.Removed, "c1")
	for range 2 {
		s.must(s.Runtime.RemoveSandbox(s.ctx, "p1"))
	}
	s.heard(container.Removed, "p1")
	if n := s.times(container.ContainerExited, "c1"); n != 1 {
		s.Errorf("exit told %d times", n)
	}
	boxes, err := s.Runtime.Sandboxes(s.ctx)
	s.must(err)
	all, err := s.Runtime.Containers(s.ctx)
	s.must(err)
	if len(boxes)+len(all) > 0 {
		s.Errorf("left: %+v, %+v", boxes, all)
	}
}

func endsWithCode(s *scene) {
	s.sandbox("p1")
	s.start("p1", "c1", Exit3)
	e := s.heard(container.ContainerExited, "c1")
	if e.ExitCode != 3 || e.At.IsZero() {
		s.Errorf("event %+v", e)
	}
	c := s.container("c1")
	if c.State != container.Exited || !c.ExitKnown || c.ExitCode != 3 || c.OOMKilled || c.StartedAt.IsZero() || c.FinishedAt.Before(c.StartedAt.Add(-time.Second)) {
		s.Errorf("ended: %+v", c)
	}
	if c.Sandbox != "p1" || c.Pod != pod("p1").Pod || c.Name != "main" || c.Attempt != 2 || c.Hash != "abc" || c.Image != s.Image || !strings.HasPrefix(c.ImageID, "sha256:") {
		s.Errorf("what it is: %+v", c)
	}
	s.is("start of what has exited", s.Runtime.Start(s.ctx, "c1"), container.ErrNotReady)
	s.must(s.Runtime.Signal(s.ctx, "c1", syscall.SIGTERM))
	all, err := s.Runtime.Containers(s.ctx)
	s.must(err)
	if len(all) != 1 || !cmp.Equal(all[0], c) {
		s.Errorf("listed otherwise than asked for: %s", cmp.Diff(all, []container.Container{c}))
	}
}

func signals(s *scene) {
	s.sandbox("p1")
	s.start("p1", "c1", OnTERM7)
	s.start("p1", "c2", Forever)
	s.ready("c1")
	s.must(s.Runtime.Signal(s.ctx, "c1", syscall.SIGTERM))
	if e := s.heard(container.ContainerExited, "c1"); e.ExitCode != 7 {
		s.Errorf("on SIGTERM: %+v", e)
	}
	s.must(s.Runtime.Signal(s.ctx, "c2", syscall.SIGKILL))
	if e := s.heard(container.ContainerExited, "c2"); e.ExitCode != 137 {
		s.Errorf("on SIGKILL: %+v", e)
	}
	if c := s.container("c2"); c.ExitCode != 137 || c.OOMKilled {
		s.Errorf("killed: %+v", c)
	}
}

// ready waits until OnTERM7 has set its trap: it runs its loop then.
func (s *scene) ready(id string) {
	s.Helper()
	for late := time.Now().Add(bound); ; {
		code, err := s.Runtime.Exec(s.ctx, id, container.ExecSpec{Command: []string{"/bin/sh", "-c", "grep -q '^SigCgt:.*[4567cdef]...$' /proc/1/status"}})
		s.must(err)
		if code == 0 {
			return
		}
		if time.Now().After(late) {
			s.Fatal("its trap is never set")
		}
	}
}

func removeRunning(s *scene) {
	s.sandbox("p1")
	s.start("p1", "c1", Forever)
	s.must(s.Runtime.Remove(s.ctx, "c1"))
	if e := s.heard(container.ContainerExited, "c1"); e.ExitCode != 137 {
		s.Errorf("event %+v", e)
	}
	s.heard(container.Removed, "c1")
	_, err := s.Runtime.Container(s.ctx, "c1")
	s.is("what was removed", err, container.ErrNotFound)
	s.start("p1", "c1", Exit3) // the same ID again
	s.heard(container.ContainerExited, "c1")
}

func missingCommand(s *scene) {
	s.sandbox("p1")
	s.must(s.Runtime.Create(s.ctx, s.spec("p1", "c1", Missing)))
	err := s.Runtime.Start(s.ctx, "c1")
	s.is("start", err, container.ErrInvalid)
	if err != nil && !strings.Contains(err.Error(), Missing[0]) {
		s.Errorf("the error does not name the command: %v", err)
	}
	if c := s.container("c1"); c.State != container.Created {
		s.Errorf("it is %+v", c)
	}
	s.must(s.Runtime.Remove(s.ctx, "c1"))
}

func unknown(s *scene) {
	s.must(s.Runtime.Remove(s.ctx, "nothing"))
	s.must(s.Runtime.RemoveSandbox(s.ctx, "nothing"))
	s.is("start", s.Runtime.Start(s.ctx, "nothing"), container.ErrNotFound)
	s.is("signal", s.Runtime.Signal(s.ctx, "nothing", syscall.SIGTERM), container.ErrNotFound)
	_, err := s.Runtime.Stdin(s.ctx, "nothing")
	s.is("standard input", err, container.ErrNotFound)
	_, err = s.Runtime.Dial(s.ctx, "nothing", 80)
	s.is("connection", err, container.ErrNotFound)
	s.is("end of input", s.Runtime.CloseStdin(s.ctx, "nothing"), container.ErrNotFound)
	s.is("resize", s.Runtime.Resize(s.ctx, "nothing", container.Size{Width: 80, Height: 25}), container.ErrNotFound)
	_, err = s.Runtime.Container(s.ctx, "nothing")
	s.is("container", err, container.ErrNotFound)
	_, err = s.Runtime.Exec(s.ctx, "nothing", container.ExecSpec{Command: Exit3})
	s.is("exec", err, container.ErrNotFound)
	_, err = s.Runtime.Image(s.ctx, "nothing")
	s.is("image", err, container.ErrNotFound)
	s.is("remove image", s.Runtime.RemoveImage(s.ctx, "nothing"), container.ErrNotFound)
	_, err = s.Runtime.Image(s.ctx, "Not A Name")
	if !errors.Is(err, container.ErrInvalid) && !errors.Is(err, container.ErrNotFound) {
		s.Errorf("what is no name: %v", err)
	}
	v, err := s.Runtime.Version(s.ctx)
	s.must(err)
	if !strings.Contains(v, "://") {
		s.Errorf("version %q", v)
	}
}

func order(s *scene) {
	s.is("create without a sandbox", s.Runtime.Create(s.ctx, s.spec("p1", "c1", Forever)), container.ErrNotReady)
	s.sandbox("p1")
	spec := s.spec("p1", "c1", Forever)
	spec.Image = "absent"
	s.is("create without an image", s.Runtime.Create(s.ctx, spec), container.ErrNotFound)
	s.must(s.Runtime.Create(s.ctx, s.spec("p1", "c1", Forever)))
	_, err := s.Runtime.Exec(s.ctx, "c1", container.ExecSpec{Command: Exit3})
	s.is("exec before the start", err, container.ErrNotReady)
	s.must(s.Runtime.Signal(s.ctx, "c1", syscall.SIGTERM))
	if c := s.container("c1"); c.State != container.Created {
		s.Errorf("signalled before its start: %+v", c)
	}
}

func adoption(s *scene) {
	before := s.sandbox("p1")
	s.start("p1", "c1", Forever)
	s.start("p1", "c2", Exit3)
	s.must(s.Runtime.Create(s.ctx, s.spec("p1", "c3", Exit3)))
	s.heard(container.ContainerExited, "c2")
	was, err := s.Runtime.Containers(s.ctx)
	s.must(err)

	again := s.Again(s.T)
	s.must(again.Configure(s.ctx, Network))
	defer again.Subscribe(s.hear)()
	is, err := again.Containers(s.ctx)
	s.must(err)
	if !cmp.Equal(is, was) || len(is) != 3 {
		s.Errorf("containers: %s", cmp.Diff(was, is))
	}
	boxes, err := again.Sandboxes(s.ctx)
	s.must(err)
	if len(boxes) != 1 || boxes[0] != before {
		s.Errorf("sandboxes %+v, was %+v", boxes, before)
	}
	same, err := again.RunSandbox(s.ctx, pod("p1"))
	s.must(err)
	if same != before {
		s.Errorf("sandbox %+v, was %+v", same, before)
	}
	s.must(again.Start(s.ctx, "c1"))
	s.must(again.Create(s.ctx, s.spec("p1", "c3", Exit3)))
	s.must(again.Start(s.ctx, "c3"))
	s.heard(container.ContainerExited, "c3")
	s.must(again.Signal(s.ctx, "c1", syscall.SIGKILL))
	s.heard(container.ContainerExited, "c1")
	s.must(again.RemoveSandbox(s.ctx, "p1"))
}

func mending(s *scene) {
	before := s.sandbox("p1")
	s.Break(s.T, "p1")
	boxes, err := s.Runtime.Sandboxes(s.ctx)
	s.must(err)
	if len(boxes) != 1 || boxes[0].Ready {
		s.Errorf("broken: %+v", boxes)
	}
	s.is("create in it", s.Runtime.Create(s.ctx, s.spec("p1", "c1", Forever)), container.ErrNotReady)
	if after := s.sandbox("p1"); after != before {
		s.Errorf("mended: %+v, was %+v", after, before)
	}
	s.start("p1", "c1", Exit3)
	s.heard(container.ContainerExited, "c1")
}

func removeSandbox(s *scene) {
	s.sandbox("p1")
	s.sandbox("p2")
	s.start("p1", "c1", Forever)
	s.start("p1", "c2", Forever)
	s.start("p2", "c3", Forever)
	s.must(s.Runtime.RemoveSandbox(s.ctx, "p1"))
	for _, id := range []string{"c1", "c2", "p1"} {
		s.heard(container.Removed, id)
	}
	all, err := s.Runtime.Containers(s.ctx)
	s.must(err)
	if len(all) != 1 || all[0].ID != "c3" || all[0].State != container.Running {
		s.Errorf("left: %+v", all)
	}
}

func execute(s *scene) {
	s.sandbox("p1")
	s.start("p1", "c1", Forever)
	var out, bad bytes.Buffer
	code, err := s.Runtime.Exec(s.ctx, "c1", container.ExecSpec{
		Command: Complain, Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &bad,
	})
	if err != nil || code != 5 || out.String() != "hello" || bad.String() != "bad\n" {
		s.Errorf("code %d, out %q, err %q, %v", code, &out, &bad, err)
	}
	_, err = s.Runtime.Exec(s.ctx, "c1", container.ExecSpec{Command: Missing})
	s.is("exec of a missing command", err, container.ErrInvalid)
	ctx, cancel := context.WithTimeout(s.ctx, 100*time.Millisecond)
	defer cancel()
	_, err = s.Runtime.Exec(ctx, "c1", container.ExecSpec{Command: Forever})
	s.is("exec that outlasts its time", err, context.DeadlineExceeded)
	if n := s.times(container.ContainerExited, "c1"); n > 0 || s.container("c1").State != container.Running {
		s.Errorf("the container itself ended, told %d times", n)
	}
}

func refused(s *scene) {
	s.sandbox("p1")
	s.start("p1", "c1", Forever)
	_, err := s.Runtime.Stdin(s.ctx, "c1")
	s.is("standard input of a container made without", err, container.ErrInvalid)
	_, err = s.Runtime.Dial(s.ctx, "p1", 80)
	s.is("connection where nobody listens", err, syscall.ECONNREFUSED)
	made := s.spec("p1", "c2", Forever)
	made.Stdin = true
	s.must(s.Runtime.Create(s.ctx, made))
	_, err = s.Runtime.Stdin(s.ctx, "c2")
	s.is("standard input before the start", err, container.ErrNotReady)
	s.must(s.Runtime.Start(s.ctx, "c2"))
	in, err := s.Runtime.Stdin(s.ctx, "c2")
	s.must(err)
	_, err = io.WriteString(in, "hello")
	s.must(err)
	s.must(in.Close())
}

func images(s *scene) {
	before, err := s.Runtime.Images(s.ctx)
	s.must(err)
	for range 2 {
		held, err := s.Runtime.Import(s.ctx, s.Archive(s.T))
		s.must(err)
		if len(held) != 1 || !slices.Equal(held[0].Names, []string{ArchivedFull}) || held[0].Size == 0 {
			s.Fatalf("imported %+v", held)
		}
	}
	img, err := s.Runtime.Image(s.ctx, Archived)
	s.must(err)
	if len(img.Digests) != 1 || !strings.HasPrefix(img.Digests[0], "docker.io/suite/other@sha256:") {
		s.Fatalf("digests %v", img.Digests)
	}
	for _, name := range []string{ArchivedFull, img.ID, img.Digests[0]} {
		if same, err := s.Runtime.Image(s.ctx, name); err != nil || !cmp.Equal(same, img) {
			s.Errorf("by %s: %+v, %v", name, same, err)
		}
	}
	all, err := s.Runtime.Images(s.ctx)
	s.must(err)
	if len(all) != len(before)+1 || !slices.IsSortedFunc(all, func(a, b container.Image) int { return strings.Compare(a.ID, b.ID) }) {
		s.Errorf("images %+v", all)
	}
	s.sandbox("p1")
	spec := s.spec("p1", "c1", Exit3)
	spec.Image = Archived
	s.must(s.Runtime.Create(s.ctx, spec))
	s.must(s.Runtime.RemoveImage(s.ctx, Archived))
	s.is("removed twice", s.Runtime.RemoveImage(s.ctx, Archived), container.ErrNotFound)
	s.must(s.Runtime.Start(s.ctx, "c1"))
	if e := s.heard(container.ContainerExited, "c1"); e.ExitCode != 3 {
		s.Errorf("a container whose image was removed: %+v", e)
	}
	_, err = s.Runtime.Import(s.ctx, s.Archive(s.T))
	s.must(err)
	s.must(s.Runtime.RemoveImage(s.ctx, img.ID))
	after, err := s.Runtime.Images(s.ctx)
	s.must(err)
	if !cmp.Equal(after, before) {
		s.Errorf("images: %s", cmp.Diff(before, after))
	}
	_, err = s.Runtime.Import(s.ctx, strings.NewReader("this is no archive"))
	s.is("import of something else", err, container.ErrInvalid)
}

func (s *scene) pull(name string, auth container.Auth) container.Image {
	s.Helper()
	img, err := s.Runtime.Pull(s.ctx, name, auth, nil)
	s.must(err)
	return img
}

func pulls(s *scene) {
	name := s.Offer(s.T, "suite/app:1", "first", container.Auth{})
	_, err := s.Runtime.Image(s.ctx, name)
	s.is("before it is pulled", err, container.ErrNotFound)
	var p container.Progress
	first, err := s.Runtime.Pull(s.ctx, name, container.Auth{}, &p)
	s.must(err)
	if now := p.Step(); now.Layers == 0 || now.LayersHere != now.Layers || now.Bytes == 0 || now.BytesHere != now.Bytes {
		s.Errorf("progress at the end: %+v", now)
	}
	if !slices.Equal(first.Names, []string{name}) || len(first.Digests) != 1 || first.Size == 0 || first.At.IsZero() ||
		!slices.Equal(first.Pulled[name], []string{container.Anyone}) || !slices.Equal(first.Pulled[first.Digests[0]], []string{container.Anyone}) {
		s.Errorf("pulled %+v", first)
	}
	if first.Ref(name) != first.Digests[0] {
		s.Errorf("a status shows %s of %+v", first.Ref(name), first)
	}
	s.sandbox("p1")
	spec := s.spec("p1", "c1", Exit3)
	spec.Image = name
	s.must(s.Runtime.Create(s.ctx, spec))
	s.must(s.Runtime.Start(s.ctx, "c1"))
	s.heard(container.ContainerExited, "c1")
	if c := s.container("c1"); c.ImageID != first.ID || c.ImageRef != first.Digests[0] {
		s.Errorf("a container of a pulled image: %+v", c)
	}
	if again := s.pull(name, container.Auth{}); again.ID != first.ID || !cmp.Equal(again.Pulled, first.Pulled) {
		s.Errorf("pulled again: %+v", again)
	}

	s.Offer(s.T, "suite/app:1", "second", container.Auth{})
	second := s.pull(name, container.Auth{})
	if second.ID == first.ID || !slices.Equal(second.Names, []string{name}) {
		s.Errorf("another image of that name: %+v", second)
	}
	if _, err := s.Runtime.Image(s.ctx, first.ID); !errors.Is(err, container.ErrNotFound) {
		s.Errorf("the image that lost its name: %v", err)
	}
	s.must(s.Runtime.RemoveImage(s.ctx, name))
	byDigest := s.pull(second.Digests[0], container.Auth{})
	if byDigest.ID != second.ID || len(byDigest.Names) > 0 || !slices.Equal(byDigest.Digests, second.Digests) {
		s.Errorf("by digest: %+v", byDigest)
	}
	if disk, err := s.Runtime.ImageDisk(s.ctx); err != nil || disk.Size <= 0 || disk.Free <= 0 || disk.Free > disk.Size {
		s.Errorf("room for images: %+v, %v", disk, err)
	}
}

func refusals(s *scene) {
	alice, bob := container.Auth{Username: "alice", Password: "a:1"}, container.Auth{Username: "bob", Password: "b"}
	name := s.Offer(s.T, "suite/secret:1", "first", alice)
	for what, c := range map[string]struct {
		name string
		auth container.Auth
		want error
	}{
		"nobody":           {name, container.Auth{}, container.ErrDenied},
		"another":          {name, bob, container.ErrDenied},
		"no such tag":      {strings.TrimSuffix(name, "1") + "9", alice, container.ErrNotFound},
		"not a name":       {"UPPER case", alice, container.ErrInvalid},
		"nobody at a port": {"127.0.0.1:1/suite/app:1", alice, container.ErrUnreachable},
	} {
		_, err := s.Runtime.Pull(s.ctx, c.name, c.auth, nil)
		s.is(what, err, c.want)
	}
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.Runtime.Pull(ended, name, alice, nil)
	s.is("nobody wants it any more", err, context.Canceled)
	img := s.pull(name, alice)
	if !slices.Equal(img.Pulled[name], []string{alice.Fingerprint()}) {
		s.Errorf("for whom: %v", img.Pulled)
	}
	s.Offer(s.T, "suite/secret:1", "first", bob)
	img = s.pull(name, bob)
	if want := slices.Sorted(slices.Values([]string{alice.Fingerprint(), bob.Fingerprint()})); !slices.Equal(img.Pulled[name], want) {
		s.Errorf("for whom: %v", img.Pulled)
	}
}

func usage(s *scene) {
	s.sandbox("p1")
	s.start("p1", "c1", OnTERM7)
	s.start("p1", "c2", Exit3)
	s.must(s.Runtime.Create(s.ctx, s.spec("p1", "c3", Exit3)))
	s.heard(container.ContainerExited, "c2")
	for late := time.Now().Add(bound); ; {
		all, err := s.Runtime.Usage(s.ctx)
		s.must(err)
		if len(all) != 1 || all[0].ContainerID != "c1" {
			s.Fatalf("usage of %s", fmt.Sprint(all))
		}
		c, err := s.Runtime.Container(s.ctx, "c1")
		s.must(err)
		if u := all[0]; u.Pod != c.Pod || u.Name != c.Name || u.Name == "" || u.StartedAt.IsZero() || !u.StartedAt.Equal(c.StartedAt) || u.At.Before(u.StartedAt) {
			s.Fatalf("usage %+v of the container %+v", u, c)
		}
		if all[0].CPU > 0 && all[0].Memory > 0 {
			return
		}
		if time.Now().After(late) {
			s.Fatalf("nothing used: %+v", all)
		}
	}
}
