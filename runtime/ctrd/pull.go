package ctrd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	coreimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/container"
)

const (
	// labelPulled is at names that a registry gave: the fingerprints of the
	// credentials that it gave them for. An import takes it away.
	labelPulled = "troupe.sh/pulled"

	layersAtOnce = 3
	stallMax     = 5 * time.Minute // without a byte, as containerd's CRI has it
	leaseFor     = 24 * time.Hour  // what a pull left behind whose agent died
)

// Pull implements [container.Runtime]. What a pull brings is held by a lease
// that is named after the image: one that an agent's death leaves behind is the
// next pull's, with everything that is in it.
func (r *Runtime) Pull(ctx context.Context, name string, auth container.Auth, p *container.Progress) (container.Image, error) {
	full, err := container.ImageName(name)
	if err != nil {
		return container.Image{}, err
	}
	ctx = quiet(r.in(ctx))
	if err := r.pull(ctx, full, auth, p); err != nil {
		return container.Image{}, fmt.Errorf("pull %s: %w", full, err)
	}
	r.images.invalidate()
	img, err := r.images.find(ctx, full)
	if err != nil {
		return container.Image{}, fmt.Errorf("pull %s: %w", full, err)
	}
	// Its users are read now, so that the first container need not wait.
	if _, err := r.images.user(ctx, img, container.Security{User: "0"}); err != nil {
		return container.Image{}, fmt.Errorf("pull %s: %w", full, err)
	}
	return img.view(), nil
}

// quiet throws away what containerd's client would print: it is in the error too.
func quiet(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return log.WithLogger(ctx, logrus.NewEntry(l))
}

func (r *Runtime) pull(ctx context.Context, full string, auth container.Auth, p *container.Progress) error {
	lease := fmt.Sprintf("troupe-pull-%x", sha256.Sum256([]byte(full)))
	_, err := r.client.LeasesService().Create(ctx, leases.WithID(lease), leases.WithExpiration(leaseFor))
	if err != nil && !errdefs.IsAlreadyExists(native(err)) {
		return kind(err)
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWait)
		defer cancel()
		if err := r.client.LeasesService().Delete(clean, leases.Lease{ID: lease}); err != nil && !errdefs.IsNotFound(native(err)) {
			r.c.Log.Warn("remove the lease of a pull", "image", full, "error", err)
		}
	}()
	before, err := r.client.ImageService().Get(ctx, full)
	if err != nil && !errdefs.IsNotFound(err) {
		return kind(err)
	}

	ctx, cancel := context.WithCancelCause(leases.WithLease(ctx, lease))
	defer cancel(nil)
	m := &meter{progress: p, last: time.Now()}
	stop := m.guard(stallMax, func(after time.Duration) {
		cancel(fmt.Errorf("the registry has sent nothing for %s: %w", after, container.ErrUnreachable))
	})
	defer stop()
	resolver := docker.NewResolver(docker.ResolverOptions{
		Headers: http.Header{"User-Agent": {"troupe"}},
		Hosts: config.ConfigureHosts(ctx, config.HostOptions{
			HostDir:      config.HostDirFromRoot(r.c.CertsDir),
			Credentials:  func(string) (string, string, error) { return auth.Username, auth.Password, nil },
			UpdateClient: m.measure,
		}),
	})
	pulled, err := r.client.Pull(ctx, full,
		client.WithResolver(resolver),
		client.WithPullUnpack,
		client.WithPullSnapshotter(r.snapshotter),
		client.WithMaxConcurrentDownloads(layersAtOnce),
		client.WithPullLabel(labelPulled, auth.Fingerprint()),
		client.WithImageHandler(coreimages.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			if coreimages.IsLayerType(d.MediaType) {
				_, err := r.client.ContentStore().Info(ctx, d.Digest)
				p.Expect(d.Digest.String(), d.Size, err == nil)
			}
			return nil, nil
		})),
	)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return pullError(err)
	}
	if was := before.Labels[labelPulled]; was != "" && before.Target.Digest == pulled.Target().Digest {
		return r.alsoFor(ctx, pulled.Metadata(), was)
	}
	return nil
}

// alsoFor remembers that an image was given for other credentials too.
func (r *Runtime) alsoFor(ctx context.Context, record coreimages.Image, was string) error {
	const most = 32 // a label has 4,096 bytes
	all := strings.Split(was, ",")
	for _, f := range strings.Split(record.Labels[labelPulled], ",") {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	all = all[max(0, len(all)-most):]
	record.Labels[labelPulled] = strings.Join(all, ",")
	_, err := r.client.ImageService().Update(ctx, record, "labels."+labelPulled)
	return kind(err)
}

// pullError says in the port's words what a registry, or containerd, answered.
func pullError(err error) error {
	as := func(kind error) error { return fmt.Errorf("%w: %w", kind, err) }
	var status remoteerrors.ErrUnexpectedStatus
	var transport *url.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, container.ErrUnreachable):
		return err
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return as(container.ErrDenied)
	case errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden):
		return as(container.ErrDenied)
	case errors.As(err, &status) && (status.StatusCode >= 500 || status.StatusCode == http.StatusTooManyRequests), errors.As(err, &transport):
		return as(container.ErrUnreachable)
	case errdefs.IsNotFound(err):
		return as(container.ErrNotFound)
	}
	return kind(err)
}

// meter counts what comes from registries.
type meter struct {
	progress *container.Progress

	mu     sync.Mutex
	active int // requests whose answer is not read yet
	last   time.Time
}

// guard calls fall when a request is open and nothing has come for as long as limit.
func (m *meter) guard(limit time.Duration, fall func(time.Duration)) (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(limit / 10)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				m.mu.Lock()
				stalled := m.active > 0 && now.Sub(m.last) > limit
				m.mu.Unlock()
				if stalled {
					fall(limit)
					return
				}
			}
		}
	}()
	return func() { close(done) }
}

func (m *meter) count(requests int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active += requests
	m.last = time.Now()
}

// measure has a client measured. It may get the same client again, or one that
// was made after its model.
func (m *meter) measure(c *http.Client) error {
	if _, ok := c.Transport.(*measured); !ok {
		c.Transport = &measured{m, c.Transport}
	}
	return nil
}

type measured struct {
	*meter
	next http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (m *measured) RoundTrip(r *http.Request) (*http.Response, error) {
	m.count(1)
	response, err := m.next.RoundTrip(r)
	if err != nil {
		m.count(-1)
		return nil, err
	}
	body := &measuredBody{ReadCloser: response.Body, meter: m.meter, blob: blobOf(r)}
	if from, ok := strings.CutPrefix(response.Header.Get("Content-Range"), "bytes "); ok {
		from, _, _ = strings.Cut(from, "-")
		body.at, _ = strconv.ParseInt(from, 10, 64)
	}
	response.Body = body
	return response, nil
}

var blobPath = regexp.MustCompile(`/blobs/(sha\d+:[0-9a-f]+)$`)

// blobOf is the blob that a request asks for, or a request that led to it by
// redirection.
func blobOf(r *http.Request) string {
	for r != nil {
		if r.Method == http.MethodGet {
			if found := blobPath.FindStringSubmatch(r.URL.Path); found != nil {
				return found[1]
			}
		}
		if r.Response == nil {
			break
		}
		r = r.Response.Request
	}
	return ""
}

type measuredBody struct {
	io.ReadCloser
	meter *meter
	blob  string
	at    int64
	once  sync.Once
}

// Read implements [io.Reader].
func (b *measuredBody) Read(to []byte) (int, error) {
	n, err := b.ReadCloser.Read(to)
	if n > 0 {
		b.meter.count(0)
		if b.at += int64(n); b.blob != "" {
			b.meter.progress.Here(b.blob, b.at)
		}
	}
	return n, err
}

// Close implements [io.Closer].
func (b *measuredBody) Close() error {
	b.once.Do(func() { b.meter.count(-1) })
	return b.ReadCloser.Close()
}

// ImageDisk implements [container.Runtime].
func (r *Runtime) ImageDisk(ctx context.Context) (container.Disk, error) {
	root, err := r.images.root(r.in(ctx))
	if err != nil {
		return container.Disk{}, fmt.Errorf("where containerd keeps images: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return container.Disk{}, fmt.Errorf("room for images in %s: %w", root, err)
	}
	return container.Disk{Size: int64(fs.Blocks) * fs.Bsize, Free: int64(fs.Bavail) * fs.Bsize}, nil
}
