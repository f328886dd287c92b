package ctrd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/cgroup"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/suite"
	"github.com/troupe-sh/troupe/runtime/ctrd"
	"github.com/troupe-sh/troupe/runtime/keeper"
	"github.com/troupe-sh/troupe/runtime/sandbox"
)

func TestMain(m *testing.M) {
	// A short path: sockets stand under it.
	dir, err := os.MkdirTemp("", "ctrd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	base = dir
	code := suite.Isolate(m)
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(1, code)
	}
	os.Exit(code)
}

var base string

// daemon is one containerd for all tests of this process; each has a namespace
// of it. It ends with the process.
var daemon = sync.OnceValues(func() (*ctrd.Daemon, error) {
	return ctrd.Private(context.Background(), ctrd.PrivateConfig{
		RunDir: filepath.Join(base, "run"), DataDir: filepath.Join(base, "data"), Log: slog.New(slog.DiscardHandler),
	})
})

// reader is a keeper for tests: it keeps what containers print in memory.
type reader struct {
	mu   sync.Mutex
	text map[string]*bytes.Buffer
	open map[string][]*os.File
}

func newReader(t testing.TB) *reader {
	r := &reader{text: map[string]*bytes.Buffer{}, open: map[string][]*os.File{}}
	t.Cleanup(func() {
		for id := range r.open {
			_ = r.Forget(context.Background(), id)
		}
	})
	return r
}

func (r *reader) Follow(_ context.Context, l keeper.Log) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.open[l.ContainerID]; ok {
		return nil
	}
	b := &bytes.Buffer{}
	r.text[l.ContainerID] = b
	for _, fifo := range l.FIFOs() {
		f, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		r.open[l.ContainerID] = append(r.open[l.ContainerID], f)
		go func() {
			buf := make([]byte, 4096)
			for {
				n, err := f.Read(buf)
				if err != nil {
					return
				}
				r.mu.Lock()
				b.Write(buf[:n])
				r.mu.Unlock()
			}
		}()
	}
	return nil
}

func (r *reader) Forget(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.open[id] {
		f.Close()
	}
	delete(r.open, id)
	return nil
}

func (r *reader) of(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.text[id]; b != nil {
		return b.String()
	}
	return ""
}

// machine is a runtime under test with its directories.
type machine struct {
	*ctrd.Runtime
	config ctrd.Config
	logs   *reader
}

var count struct {
	sync.Mutex
	n int
}

const image = "busybox"

// fresh is a runtime with nothing but an image.
func fresh(t testing.TB) *machine {
	t.Helper()
	d, err := daemon()
	if err != nil {
		t.Fatal(err)
	}
	count.Lock()
	count.n++
	name := fmt.Sprint("t", count.n)
	count.Unlock()
	dir := filepath.Join(base, name)
	m := &machine{logs: newReader(t)}
	m.config = ctrd.Config{
		Address: d.Address, Namespace: name, RunDir: filepath.Join(dir, "run"), DataDir: filepath.Join(dir, "data"),
		CgroupParent: suite.CgroupParent(), Logs: m.logs, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	m.Runtime = m.connect(t)
	archive, err := busybox()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Import(t.Context(), bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	if err := m.Configure(t.Context(), suite.Network); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.wipe(t) })
	return m
}

var busybox = sync.OnceValues(func() ([]byte, error) {
	return suite.Busybox(image, v1.Config{
		Env: []string{"PATH=/bin", "FROM=image", "BOTH=image"}, WorkingDir: "/home", StopSignal: "SIGQUIT",
		Entrypoint: []string{"/bin/sh"}, Cmd: []string{"-c", "echo command of the image"},
	})
})

// connect is another agent on the same machine.
func (m *machine) connect(t testing.TB) *ctrd.Runtime {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	r, err := ctrd.Connect(ctx, m.config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wipe removes everything and checks that nothing is left.
func (m *machine) wipe(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = m.Close()
	r := m.connect(t) // what nobody remembers is removed all the same
	defer r.Close()
	boxes, err := r.Sandboxes(ctx)
	for _, b := range boxes {
		err = errors.Join(err, r.RemoveSandbox(ctx, b.ID))
	}
	left, listErr := r.Containers(ctx)
	err = errors.Join(err, listErr)
	for _, c := range left {
		err = errors.Join(err, r.Remove(ctx, c.ID))
	}
	images, listErr := r.Images(ctx)
	err = errors.Join(err, listErr)
	for _, i := range images {
		err = errors.Join(err, r.RemoveImage(ctx, i.ID))
	}
	// runc's place for the namespace, if nothing is in it.
	_ = os.Remove(filepath.Join("/run/containerd/runc", m.config.Namespace))
	if err := errors.Join(err, sandbox.Teardown(), cgroup.Remove(m.config.CgroupParent)); err != nil {
		t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(string(mounts), m.config.RunDir) || strings.Contains(string(mounts), m.config.DataDir) {
		t.Errorf("mounts left:\n%s", mounts)
	}
	for _, dir := range []string{
		m.config.RunDir + "/io", m.config.RunDir + "/netns", m.config.DataDir + "/pods",
	} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

func TestSuite(t *testing.T) {
	suite.Run(t, func(t *testing.T) suite.Subject {
		m := fresh(t)
		return suite.Subject{
			Runtime: m.Runtime, Image: image,
			Again: func(t *testing.T) container.Runtime { return m.connect(t) },
			Offer: offering(t),
			Break: func(t *testing.T, id string) {
				if err := unix.Unmount(filepath.Join(m.config.RunDir, "netns", id, "net"), unix.MNT_DETACH); err != nil {
					t.Fatal(err)
				}
			},
			Archive: func(t *testing.T) io.Reader {
				raw, err := suite.Busybox(suite.Archived, v1.Config{Env: []string{"OTHER=1"}})
				if err != nil {
					t.Fatal(err)
				}
				return bytes.NewReader(raw)
			},
		}
	})
}

// offering is a registry over plain HTTP, and what puts images into it.
func offering(t *testing.T) func(*testing.T, string, string, container.Auth) string {
	r := suite.NewRegistry()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return func(t *testing.T, repoTag, version string, auth container.Auth) string {
		push(t, r, repoTag, version)
		repo, _, _ := strings.Cut(repoTag, ":")
		r.Require(repo, auth)
		return strings.TrimPrefix(server.URL, "http://") + "/" + repoTag
	}
}

// push puts an image with a layer of its own into a registry.
func push(t *testing.T, r *suite.Registry, repoTag, version string) {
	t.Helper()
	img, err := suite.BusyboxImage(v1.Config{Env: []string{"VERSION=" + version}})
	if err != nil {
		t.Fatal(err)
	}
	layer, err := random.Layer(64<<10, types.DockerLayer, random.WithSource(rand.NewSource(int64(len(version)))))
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		t.Fatal(err)
	}
	if err := r.Push(repoTag, img); err != nil {
		t.Fatal(err)
	}
}
