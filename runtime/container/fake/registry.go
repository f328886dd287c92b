package fake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/troupe-sh/troupe/runtime/container"
)

// Offer is an image that the registry has.
type Offer struct {
	Version   string // another one is another image of the same name
	Behaviour Behaviour
	Size      int64          // 0: 1 MiB
	Auth      container.Auth // who alone gets it; zero: everybody
	Takes     time.Duration  // to bring it
}

// Offer puts an image into its registry, which is there from then on, and
// returns the image's ID.
func (r *Runtime) Offer(name string, o Offer) string {
	full, err := container.ImageName(name)
	if err != nil {
		panic(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o.Size = cmp.Or(o.Size, 1<<20)
	r.offers[full], r.registries[host(full)] = o, true
	r.behaviours[name], r.behaviours[full], r.behaviours[o.id(full)] = o.Behaviour, o.Behaviour, o.Behaviour
	return o.id(full)
}

func host(full string) string {
	h, _, _ := strings.Cut(full, "/")
	return h
}

func (o Offer) id(full string) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(full+" "+o.Version)))
}

// Withdraw takes an image out of the registry.
func (r *Runtime) Withdraw(name string) {
	full, _ := container.ImageName(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.offers, full)
}

// SetRegistry says whether registries can be reached.
func (r *Runtime) SetRegistry(reachable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unreachable = !reachable
}

// SetDisk says what room there is for images.
func (r *Runtime) SetDisk(d container.Disk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disk = d
}

// ImageDisk implements [container.Runtime].
func (r *Runtime) ImageDisk(context.Context) (container.Disk, error) {
	late, err := r.begin("ImageDisk")
	defer r.end()
	return r.disk, cmp.Or(err, late)
}

// Pull implements [container.Runtime].
func (r *Runtime) Pull(ctx context.Context, name string, auth container.Auth, p *container.Progress) (container.Image, error) {
	full, err := container.ImageName(name)
	if err != nil {
		return container.Image{}, err
	}
	late, err := r.begin("Pull")
	o, ok := r.offers[full]
	id := o.id(full)
	if !ok { // by digest
		for n, offer := range r.offers {
			if digested(n, offer.id(n)) == full {
				o, ok, id = offer, true, offer.id(n)
			}
		}
	}
	switch {
	case err != nil:
	case ctx.Err() != nil:
		err = fmt.Errorf("pull %s: %w", full, ctx.Err())
	case r.unreachable || !r.registries[host(full)]:
		err = fmt.Errorf("pull %s: %w", full, container.ErrUnreachable)
	case o.Auth != (container.Auth{}) && o.Auth != auth:
		err = fmt.Errorf("pull %s: %w", full, container.ErrDenied)
	case !ok:
		err = fmt.Errorf("pull %s: %w", full, container.ErrNotFound)
	}
	_, here := r.find(id)
	r.end()
	if err != nil {
		return container.Image{}, err
	}
	p.Expect(id, o.Size, here)
	for n := int64(1); n <= 4 && !here && o.Takes > 0; n++ {
		if err := r.wait(ctx, o.Takes/4); err != nil {
			return container.Image{}, fmt.Errorf("pull %s: %w", full, err)
		}
		p.Here(id, o.Size*n/4)
	}
	r.mu.Lock()
	defer r.end()
	if r.gone {
		return container.Image{}, fmt.Errorf("pull %s: %w", full, container.ErrGone)
	}
	p.Here(id, o.Size)
	r.add(full, id, o.Size, []string{auth.Fingerprint()})
	i, _ := r.find(id)
	return i, late
}

// wait lets time pass, unless ctx ends.
func (r *Runtime) wait(ctx context.Context, d time.Duration) error {
	passed := make(chan struct{})
	cancel := r.o.AfterFunc(d, func() { close(passed) })
	defer cancel()
	select {
	case <-passed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
