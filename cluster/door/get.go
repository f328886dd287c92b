package door

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/troupe-sh/troupe/api"
)

// Get is an object as it stands, which is shared: never change it. One that
// does not exist is a NotFound of Kubernetes.
func (d *Door) Get(ctx context.Context, key api.Key) (api.Object, error) {
	state, err := d.present(ctx)
	if err != nil {
		return nil, err
	}
	record, ok := state.Get(key)
	if !ok {
		return nil, apierrors.NewNotFound(api.KindFor(key.Resource).GroupResource(), key.Name)
	}
	o, err := record.Object()
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return o, nil
}
