package container

import (
	"fmt"

	"github.com/distribution/reference"
)

// ImageName is the full form of an image's name, as Docker reads it: nginx is
// docker.io/library/nginx:latest. A name with a tag and a digest keeps the digest.
func ImageName(name string) (string, error) {
	r, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w: %w", name, err, ErrInvalid)
	}
	return r.String(), nil
}
