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
	"time"

	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/troupe-sh/troupe/runtime/container"
)

// record is a name, or name@digest, of an image.
type record struct {
	id     string
	pulled []string // the fingerprints that it was pulled with; nil: imported
	at     time.Time
}

// content is an image without its names.
type content struct{ size int64 }

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
	return i, nil
}

// find is an image by ID, name or digest.
func (r *Runtime) find(name string) (container.Image, bool) {
	full, _ := container.ImageName(name)
	for _, i := range r.present() {
		if i.ID == name || slices.Contains(i.Names, full) || slices.Contains(i.Digests, full) {
			return i, true
		}
	}
	return container.Image{}, false
}

// present are the images with all their names, by ID.
func (r *Runtime) present() []container.Image {
	byID := map[string]*container.Image{}
	for _, full := range slices.Sorted(maps.Keys(r.records)) {
		rec := r.records[full]
		i := byID[rec.id]
		if i == nil {
			i = &container.Image{ID: rec.id, Size: r.contents[rec.id].size, Pulled: map[string][]string{}}
			byID[rec.id] = i
		}
		if rec.at.After(i.At) {
			i.At = rec.at
		}
		if !strings.Contains(full, "@") {
			i.Names = append(i.Names, full)
		}
		i.Digests = append(i.Digests, digested(full, rec.id))
	}
	for _, i := range byID {
		i.Digests = slices.Compact(slices.Sorted(slices.Values(i.Digests)))
		imported := map[string]bool{}
		for full, rec := range r.records {
			if rec.id == i.ID && rec.pulled == nil {
				imported[full], imported[digested(full, i.ID)] = true, true
			}
		}
		for full, rec := range r.records {
			for _, n := range []string{full, digested(full, i.ID)} {
				if rec.id == i.ID && !imported[n] {
					all := append(slices.Clone(i.Pulled[n]), rec.pulled...)
					slices.Sort(all)
					i.Pulled[n] = slices.Compact(all)
				}
			}
		}
	}
	var all []container.Image
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		all = append(all, *byID[id])
	}
	return all
}

// digested is a name with the image's digest in place of its tag.
func digested(full, id string) string {
	repo, _, _ := strings.Cut(full, "@")
	if at := strings.LastIndex(repo, ":"); at > strings.LastIndex(repo, "/") {
		repo = repo[:at]
	}
	return repo + "@" + id
}

// Images implements [container.Runtime].
func (r *Runtime) Images(context.Context) ([]container.Image, error) {
	late, err := r.begin("Images")
	defer r.end()
	if err := cmp.Or(err, late); err != nil {
		return nil, err
	}
	return r.present(), nil
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
		id := "sha256:" + strings.TrimPrefix(strings.TrimSuffix(d.Config, ".json"), "sha256:")
		for _, tag := range d.RepoTags {
			name, err := container.ImageName(tag)
			if err != nil {
				return nil, fmt.Errorf("import images: %w", err)
			}
			r.add(name, id, int64(len(raw)), nil)
		}
		if i, ok := r.find(id); ok {
			held = append(held, i)
		}
	}
	return held, late
}

// add gives an image a name, which no other image keeps.
func (r *Runtime) add(full, id string, size int64, pulled []string) {
	if old := r.records[full]; old.id == id && old.pulled != nil && pulled != nil {
		pulled = append(slices.Clone(old.pulled), pulled...)
	}
	r.records[full] = record{id: id, pulled: pulled, at: r.o.Now()}
	r.contents[id] = content{size: size}
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
	one := slices.Contains(i.Names, full)
	maps.DeleteFunc(r.records, func(n string, rec record) bool { return rec.id == i.ID && (!one || n == full) })
	return late
}
