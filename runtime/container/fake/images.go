package fake

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/troupe-sh/troupe/runtime/container"
)

// Image implements [container.Runtime].
func (r *Runtime) Image(_ context.Context, name string) (container.Image, error) {
	late, err := r.begin("Image")
	defer r.end()
	if err := cmp.Or(err, late); err != nil {
		return container.Image{}, err
	}
	i, ok := r.find(name)
	if !ok {
		return container.Image{}, fmt.Errorf("image %q: %w", name, container.ErrNotFound)
	}
	return clone(i), nil
}

// find is an image by ID, name or digest.
func (r *Runtime) find(name string) (container.Image, bool) {
	if i, ok := r.images[name]; ok {
		return i, true
	}
	full, err := container.ImageName(name)
	if err != nil {
		return container.Image{}, false
	}
	for _, id := range slices.Sorted(maps.Keys(r.images)) {
		if i := r.images[id]; slices.Contains(i.Names, full) || slices.Contains(i.Digests, full) {
			return i, true
		}
	}
	return container.Image{}, false
}

// Images implements [container.Runtime].
func (r *Runtime) Images(context.Context) ([]container.Image, error) {
	late, err := r.begin("Images")
	defer r.end()
	if err := cmp.Or(err, late); err != nil {
		return nil, err
	}
	var all []container.Image
	for _, id := range slices.Sorted(maps.Keys(r.images)) {
		all = append(all, clone(r.images[id]))
	}
	return all, nil
}

// Import implements [container.Runtime]. It reads what docker save writes.
func (r *Runtime) Import(_ context.Context, archive io.Reader) ([]container.Image, error) {
	late, err := r.begin("Import")
	defer r.end()
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(archive)
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, fmt.Errorf("import images: %w: %w", err, container.ErrInvalid)
	}
	var held []container.Image
	for _, d := range manifest {
		i := container.Image{ID: "sha256:" + strings.TrimPrefix(strings.TrimSuffix(d.Config, ".json"), "sha256:"), Size: int64(len(raw))}
		for _, tag := range d.RepoTags {
			name, err := container.ImageName(tag)
			if err != nil {
				return nil, fmt.Errorf("import images: %w", err)
			}
			i.Names = append(i.Names, name)
		}
		held = append(held, clone(r.add(i)))
	}
	return held, late
}

// add stores an image under its names, which no other image keeps.
func (r *Runtime) add(i container.Image) container.Image {
	for id, other := range r.images {
		other.Names = slices.DeleteFunc(slices.Clone(other.Names), func(n string) bool { return slices.Contains(i.Names, n) })
		r.images[id] = other
	}
	if old, ok := r.images[i.ID]; ok {
		i.Names = append(slices.Clone(old.Names), i.Names...)
		i.Digests = append(slices.Clone(old.Digests), i.Digests...)
	}
	for _, n := range i.Names {
		repo, _, _ := strings.Cut(n, "@")
		if at := strings.LastIndex(repo, ":"); at > strings.LastIndex(repo, "/") {
			repo = repo[:at]
		}
		i.Digests = append(i.Digests, repo+"@"+i.ID)
	}
	slices.Sort(i.Names)
	slices.Sort(i.Digests)
	i.Names, i.Digests = slices.Compact(i.Names), slices.Compact(i.Digests)
	r.images[i.ID] = i
	return i
}

// RemoveImage implements [container.Runtime].
func (r *Runtime) RemoveImage(_ context.Context, name string) error {
	late, err := r.begin("RemoveImage")
	defer r.end()
	if err != nil {
		return err
	}
	i, ok := r.find(name)
	if !ok {
		return fmt.Errorf("remove image %q: %w", name, container.ErrNotFound)
	}
	full, _ := container.ImageName(name)
	i = clone(i)
	i.Names = slices.DeleteFunc(i.Names, func(n string) bool { return n == full })
	if len(i.Names) == 0 || name == i.ID || slices.Contains(i.Digests, full) {
		delete(r.images, i.ID)
	} else {
		r.images[i.ID] = i
	}
	return late
}

func clone(i container.Image) container.Image {
	i.Names, i.Digests = slices.Clone(i.Names), slices.Clone(i.Digests)
	return i
}
