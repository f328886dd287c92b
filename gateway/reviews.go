package gateway

import (
	apidiscovery "k8s.io/api/apidiscovery/v2"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/registry/rest"
	_ "k8s.io/kubernetes/pkg/apis/authentication/install" // registers the kinds with api.Scheme
	_ "k8s.io/kubernetes/pkg/apis/authorization/install"  // the same
	"k8s.io/kubernetes/pkg/registry/authentication/selfsubjectreview"
	"k8s.io/kubernetes/pkg/registry/authorization/selfsubjectaccessreview"
	"k8s.io/kubernetes/pkg/registry/authorization/selfsubjectrulesreview"

	"github.com/troupe-sh/troupe/api"
)

// reviews are what a client asks about itself: who it is, and what it may do.
// Nothing of it is stored.
func reviews() map[schema.GroupVersion]map[string]rest.Storage {
	all := authorizerfactory.NewAlwaysAllowAuthorizer()
	return map[schema.GroupVersion]map[string]rest.Storage{
		authenticationv1.SchemeGroupVersion: {"selfsubjectreviews": selfsubjectreview.NewREST()},
		authorizationv1.SchemeGroupVersion: {
			"selfsubjectaccessreviews": selfsubjectaccessreview.NewREST(all),
			"selfsubjectrulesreviews":  selfsubjectrulesreview.NewREST(all),
		},
	}
}

// installed is a group with what discovery says of it.
type installed struct {
	group     metav1.APIGroup
	resources []apidiscovery.APIResourceDiscovery
}

// installReviews puts their groups into the container.
func (g *Gateway) installReviews() (all []installed, err error) {
	of := reviews()
	for _, gv := range []schema.GroupVersion{authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion} {
		group, resources, err := g.installVirtual(gv, of[gv], api.Scheme, g.codecs)
		if err != nil {
			return nil, err
		}
		all = append(all, installed{group, resources})
	}
	return all, nil
}
