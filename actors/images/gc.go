package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/troupe-sh/troupe/runtime/container"
)

// GC says when images are removed that no container uses. The zero GC is
// Kubernetes' own.
type GC struct {
	High, Low int // percent of the disk that is full: from High on, until it is Low. High 100: never
	MinAge    time.Duration
}

func (c Config) gc() GC {
	if c.GC == nil {
		return GC{}.orDefault()
	}
	return c.GC().orDefault()
}

func (g GC) orDefault() GC {
	if g == (GC{}) {
		return GC{High: 85, Low: 80, MinAge: 2 * time.Minute}
	}
	return g
}

// surveyEvery is how often the machine is looked at, beside when an image came.
const surveyEvery = 5 * time.Minute

// survey is what there is on the machine.
type survey struct {
	disk       container.Disk
	images     []container.Image
	containers []container.Container
	err        error
}

func surveyed(ctx context.Context, r container.Runtime) survey {
	var s survey
	var errs [3]error
	s.disk, errs[0] = r.ImageDisk(ctx)
	s.containers, errs[1] = r.Containers(ctx)
	s.images, errs[2] = r.Images(ctx)
	s.err = errors.Join(errs[:]...)
	return s
}

// collection is what is to be removed.
type collection struct {
	ids   []string
	bytes int64 // of them
	lacks int64 // more should go, and may not
}

// choose picks what is to be removed: of what nobody uses or wants, the least
// recently used, until the disk is no fuller than it may be.
func (s *state) choose(v survey, now time.Time) collection {
	used := map[string]bool{}
	for _, c := range v.containers {
		used[c.ImageID] = true
	}
	present := map[string]bool{}
	for _, i := range v.images {
		present[i.ID] = true
		if used[i.ID] || s.wanted(i) {
			used[i.ID] = true
			s.used[i.ID] = now
		}
	}
	for id := range s.used {
		if !present[id] {
			delete(s.used, id)
		}
	}
	if v.disk.Size <= 0 || s.gc.High >= 100 || 100-v.disk.Free*100/v.disk.Size < int64(s.gc.High) {
		return collection{}
	}
	c := collection{lacks: v.disk.Size*int64(100-s.gc.Low)/100 - v.disk.Free}
	last := func(i container.Image) time.Time {
		if at := s.used[i.ID]; at.After(i.At) {
			return at
		}
		return i.At
	}
	slices.SortFunc(v.images, func(a, b container.Image) int {
		return cmp.Or(last(a).Compare(last(b)), cmp.Compare(a.ID, b.ID))
	})
	for _, i := range v.images {
		if c.lacks <= 0 || used[i.ID] || now.Sub(last(i)) < s.gc.MinAge {
			continue
		}
		c.ids = append(c.ids, i.ID)
		c.bytes += i.Size
		c.lacks -= i.Size
	}
	return c
}

// wanted tells whether somebody asks for an image now.
func (s *state) wanted(i container.Image) bool {
	for name := range s.images {
		full, err := container.ImageName(name)
		if err == nil && (slices.Contains(i.Names, full) || slices.Contains(i.Digests, full)) {
			return true
		}
	}
	return false
}

// collect removes them. One that cannot be removed does not keep the others.
func collect(ctx context.Context, r container.Runtime, ids []string) error {
	var errs []error
	for _, id := range ids {
		if err := r.RemoveImage(ctx, id); err != nil && !errors.Is(err, container.ErrNotFound) {
			errs = append(errs, fmt.Errorf("remove image %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}
