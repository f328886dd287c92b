package ctrd

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	coreimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	continuity "github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/troupe-sh/troupe/runtime/container"
)

// images knows the images that are present, so that starting a container asks
// for none of it. An event about images, or a gap, makes it read them again.
type images struct {
	client      *client.Client
	snapshotter string
	snapshots   snapshots.Snapshotter

	mu    sync.Mutex
	stale bool
	byID  map[string]*image
}

// image is one configuration with all names that lead to it.
type image struct {
	container.Image
	names      []string // as containerd has them
	targets    []digest.Digest
	imported   map[string]bool // names and digests that were not pulled
	config     ocispec.ImageConfig
	chain      string // of its layers: the snapshot that roots stand on
	stopSignal string

	once          sync.Once
	passwd, group []byte
	filesErr      error
}

func newImages(c *client.Client, snapshotter string, s snapshots.Snapshotter) *images {
	return &images{client: c, snapshotter: snapshotter, snapshots: s, stale: true, byID: map[string]*image{}}
}

// chooseSnapshotter takes overlayfs where containerd could load it.
func chooseSnapshotter(ctx context.Context, c *client.Client) (string, error) {
	plugins, err := c.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err != nil {
		return "", fmt.Errorf("list snapshotters: %w", kind(err))
	}
	ok := map[string]bool{}
	for _, p := range plugins.Plugins {
		ok[p.ID] = p.InitErr == nil
	}
	for _, name := range []string{"overlayfs", "native"} {
		if ok[name] {
			return name, nil
		}
	}
	return "", fmt.Errorf("it has neither the overlayfs nor the native snapshotter: %w", container.ErrInvalid)
}

// root is where the snapshotter keeps its files.
func (i *images) root(ctx context.Context) (string, error) {
	plugins, err := i.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1,id=="+i.snapshotter)
	if err != nil {
		return "", kind(err)
	}
	for _, p := range plugins.Plugins {
		if root := p.Exports["root"]; p.ID == i.snapshotter && root != "" {
			return root, nil
		}
	}
	return "", fmt.Errorf("snapshotter %s does not say: %w", i.snapshotter, container.ErrNotFound)
}

func (i *images) invalidate() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stale = true
}

// all are the images, read again if something changed.
func (i *images) all(ctx context.Context) (map[string]*image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.stale {
		return i.byID, nil
	}
	list, err := i.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", kind(err))
	}
	old := map[digest.Digest]*image{}
	for _, img := range i.byID {
		for _, t := range img.targets {
			old[t] = img
		}
	}
	fresh := map[string]*image{}
	for _, record := range list {
		img := old[record.Target.Digest]
		if img == nil {
			if img, err = i.read(ctx, record); err != nil {
				if errdefs.IsNotFound(err) {
					continue // of another platform, or half pulled: not present
				}
				return nil, fmt.Errorf("image %s: %w", record.Name, kind(err))
			}
		}
		at := fresh[img.ID]
		if at == nil {
			at = &image{Image: img.Image, config: img.config, chain: img.chain, stopSignal: img.stopSignal}
			at.Names, at.Digests, at.At = nil, nil, time.Time{}
			at.Pulled, at.imported = map[string][]string{}, map[string]bool{}
			fresh[img.ID] = at
		}
		at.addName(record)
	}
	for _, img := range fresh {
		slices.Sort(img.names)
		slices.Sort(img.Names)
		slices.Sort(img.Digests)
		img.Names, img.Digests = slices.Compact(img.Names), slices.Compact(img.Digests)
	}
	i.byID, i.stale = fresh, false
	return fresh, nil
}

func (img *image) addName(record coreimages.Image) {
	img.names = append(img.names, record.Name)
	img.targets = append(img.targets, record.Target.Digest)
	if record.UpdatedAt.After(img.At) {
		img.At = record.UpdatedAt
	}
	named, err := reference.ParseNormalizedNamed(record.Name)
	if err != nil {
		return // containerd's CRI also names images by their ID
	}
	if _, isDigest := named.(reference.Digested); !isDigest {
		img.Names = append(img.Names, named.String())
	}
	digested := named.Name() + "@" + record.Target.Digest.String()
	img.Digests = append(img.Digests, digested)
	for _, n := range []string{named.String(), digested} {
		switch by := record.Labels[labelPulled]; {
		case by == "":
			img.imported[n] = true
			delete(img.Pulled, n)
		case !img.imported[n]:
			img.Pulled[n] = union(img.Pulled[n], strings.Split(by, ","))
		}
	}
}

// union is a with what b has more.
func union(a, b []string) []string {
	a = slices.Concat(a, b)
	slices.Sort(a)
	return slices.Compact(a)
}

// read reads what an image is from the content store.
func (i *images) read(ctx context.Context, record coreimages.Image) (*image, error) {
	store := i.client.ContentStore()
	manifest, err := coreimages.Manifest(ctx, store, record.Target, platforms.Default())
	if err != nil {
		return nil, err
	}
	raw, err := content.ReadBlob(ctx, store, manifest.Config)
	if err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, err
	}
	img := &image{
		Image:      container.Image{ID: manifest.Config.Digest.String(), User: config.Config.User, Size: manifest.Config.Size},
		config:     config.Config,
		chain:      identity.ChainID(config.RootFS.DiffIDs).String(),
		stopSignal: config.Config.StopSignal,
	}
	for _, layer := range manifest.Layers {
		img.Size += layer.Size
	}
	return img, nil
}

// find is an image by ID, name or digest.
func (i *images) find(ctx context.Context, name string) (*image, error) {
	all, err := i.all(ctx)
	if err != nil {
		return nil, err
	}
	if img, ok := all[name]; ok {
		return img, nil
	}
	full, err := container.ImageName(name)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if img := all[id]; slices.Contains(img.Names, full) || slices.Contains(img.Digests, full) {
			return img, nil
		}
	}
	return nil, fmt.Errorf("image %q: %w", name, container.ErrNotFound)
}

// unpack makes the snapshots of an image's layers.
func (i *images) unpack(ctx context.Context, img *image) error {
	record, err := i.client.ImageService().Get(ctx, img.names[0])
	if err != nil {
		return err
	}
	return client.NewImage(i.client, record).Unpack(ctx, i.snapshotter)
}

const (
	usersWait  = 5 * time.Minute // a large image may have to be unpacked
	removeWait = 10 * time.Second
)

// user finds who a container of the image runs as. The image's own files are
// read once.
func (i *images) user(ctx context.Context, img *image, sec container.Security) (specs.User, error) {
	img.once.Do(func() { img.filesErr = i.readUsers(ctx, img) })
	if img.filesErr != nil {
		i.invalidate() // and read again
		return specs.User{}, fmt.Errorf("users of image %s: %w", img.ID, kind(img.filesErr))
	}
	return resolveUser(sec, img.config.User, img.passwd, img.group)
}

// readUsers goes on when its caller gives up: others wait for the same, and
// what it made is to be removed.
func (i *images) readUsers(ctx context.Context, img *image) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), usersWait)
	defer cancel()
	key := "troupe-users-" + rand.Text()
	view := func() ([]mount.Mount, error) {
		return i.snapshots.View(ctx, key, img.chain, snapshots.WithLabels(map[string]string{labelRoot: "true", labelKeep: "true"}))
	}
	mounts, err := view()
	if errdefs.IsNotFound(err) {
		if err := i.unpack(ctx, img); err != nil {
			return err
		}
		mounts, err = view()
	}
	if err != nil {
		return err
	}
	err = mount.WithReadonlyTempMount(ctx, mounts, func(dir string) error {
		img.passwd, err = readIfThere(dir, "etc/passwd")
		if err != nil {
			return err
		}
		img.group, err = readIfThere(dir, "etc/group")
		return err
	})
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWait)
	defer cancel()
	return errors.Join(err, i.snapshots.Remove(clean, key))
}

// accountsMax is far more than any image's accounts need.
const accountsMax = 8 << 20

// readIfThere reads a file of an image, whose maker is nobody's friend: links
// lead nowhere but into the image, a pipe or a device in its place is no file,
// and one that is too large is not read.
func readIfThere(root, name string) ([]byte, error) {
	path, err := continuity.RootPath(root, name)
	if err != nil {
		return nil, fmt.Errorf("%s of the image: %w: %w", name, err, container.ErrInvalid)
	}
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.Mode().IsRegular() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st.Size() > accountsMax {
		return nil, fmt.Errorf("%s of the image has %d bytes, at most %d are read: %w", name, st.Size(), accountsMax, container.ErrInvalid)
	}
	return os.ReadFile(path)
}

func (img *image) view() container.Image {
	v := img.Image
	v.Names, v.Digests, v.Pulled = slices.Clone(v.Names), slices.Clone(v.Digests), maps.Clone(v.Pulled)
	return v
}

// Image implements [container.Runtime].
func (r *Runtime) Image(ctx context.Context, name string) (container.Image, error) {
	img, err := r.images.find(r.in(ctx), name)
	if err != nil {
		return container.Image{}, err
	}
	return img.view(), nil
}

// Images implements [container.Runtime].
func (r *Runtime) Images(ctx context.Context) ([]container.Image, error) {
	all, err := r.images.all(r.in(ctx))
	if err != nil {
		return nil, err
	}
	var out []container.Image
	for _, id := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[id].view())
	}
	return out, nil
}

// Import implements [container.Runtime].
func (r *Runtime) Import(ctx context.Context, archive io.Reader) ([]container.Image, error) {
	held, err := r.importImages(r.in(ctx), archive)
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	return held, nil
}

func (r *Runtime) importImages(ctx context.Context, archive io.Reader) ([]container.Image, error) {
	plain, err := compression.DecompressStream(archive)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", container.ErrInvalid, err)
	}
	defer plain.Close()
	before, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, kind(err)
	}
	records, err := r.client.Import(ctx, plain, client.WithImageRefTranslator(archiveName))
	if err != nil {
		switch {
		case errors.Is(err, coreimages.ErrEmptyWalk):
			return nil, fmt.Errorf("no image for %s in the archive: %w: %w", platforms.DefaultString(), container.ErrInvalid, err)
		case errdefs.IsNotFound(err), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, tar.ErrHeader),
			strings.Contains(err.Error(), "unrecognized image format"):
			return nil, fmt.Errorf("neither what docker save writes nor an OCI layout: %w: %w", container.ErrInvalid, err)
		}
		return nil, kind(err)
	}
	r.images.invalidate()
	if len(records) == 0 {
		return nil, fmt.Errorf("the archive names no image: %w: save it with a name", container.ErrInvalid)
	}
	held, err := r.hold(ctx, records)
	if err != nil {
		return nil, errors.Join(err, r.takeBack(ctx, records, before))
	}
	return held, nil
}

// hold makes images ready for containers: unpacked and their users read, so
// that the first container need not wait.
func (r *Runtime) hold(ctx context.Context, records []coreimages.Image) ([]container.Image, error) {
	held := map[string]container.Image{}
	for _, record := range records {
		img, err := r.images.find(ctx, record.Name)
		if err != nil {
			return nil, err
		}
		if _, err := r.images.user(ctx, img, container.Security{User: "0"}); err != nil {
			return nil, err
		}
		held[img.ID] = img.view()
	}
	return slices.SortedFunc(maps.Values(held), func(a, b container.Image) int { return cmp.Compare(a.ID, b.ID) }), nil
}

// takeBack gives names back to the images that had them before an archive
// named others that cannot be used.
func (r *Runtime) takeBack(ctx context.Context, records, before []coreimages.Image) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWait)
	defer cancel()
	defer r.images.invalidate()
	had := map[string]coreimages.Image{}
	for _, record := range before {
		had[record.Name] = record
	}
	var errs []error
	for _, record := range records {
		var err error
		if was, ok := had[record.Name]; ok {
			_, err = r.client.ImageService().Update(ctx, was, "target")
		} else {
			err = r.client.ImageService().Delete(ctx, record.Name)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("take back the name %s: %w", record.Name, kind(err)))
		}
	}
	return errors.Join(errs...)
}

// archiveName is the name that an OCI archive gives an image. A bare tag names nothing.
func archiveName(ref string) string {
	if !strings.ContainsAny(ref, "/:") {
		return ""
	}
	full, err := container.ImageName(ref)
	if err != nil {
		return ""
	}
	return full
}

// RemoveImage implements [container.Runtime]. Containers keep their roots.
func (r *Runtime) RemoveImage(ctx context.Context, name string) error {
	ctx = r.in(ctx)
	img, err := r.images.find(ctx, name)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	doomed := img.names
	if full, err := container.ImageName(name); err == nil && slices.Contains(img.Names, full) {
		doomed = slices.DeleteFunc(slices.Clone(img.names), func(n string) bool {
			same, err := container.ImageName(n)
			return err != nil || same != full
		})
	}
	defer r.images.invalidate()
	for _, n := range doomed {
		if err := r.client.ImageService().Delete(ctx, n); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", n, kind(err))
		}
	}
	return nil
}
