package container

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// ImageName is the full form of an image's name, as Docker reads it: nginx is
// docker.io/library/nginx:latest. A name with a tag and a digest keeps the digest.
func ImageName(name string) (string, error) {
	r, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", nameError{name, err}
	}
	return r.String(), nil
}

// nameError is ErrInvalid in Kubernetes' words.
type nameError struct {
	name string
	err  error
}

func (e nameError) Error() string {
	return fmt.Sprintf("couldn't parse image name %q: %v", e.name, e.err)
}
func (e nameError) Unwrap() []error { return []error{ErrInvalid, e.err} }

// Ref is what a status shows of an image that was asked for by name:
// repository@digest of a pulled one, by which its registry has it, else its ID.
func (i Image) Ref(name string) string {
	r, err := reference.ParseDockerRef(name)
	if err != nil || i.Pulled[r.String()] == nil {
		return i.ID
	}
	at := slices.IndexFunc(i.Digests, func(d string) bool { return strings.HasPrefix(d, r.Name()+"@") })
	if at < 0 {
		return i.ID
	}
	return i.Digests[at]
}
