package gateway_test

import (
	"slices"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestAClientAsksAboutItself(t *testing.T) {
	s := start(t)
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		c := s.Client(contentType)
		me := must[*authenticationv1.SelfSubjectReview](t)(c.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, none))
		if u := me.Status.UserInfo; u.Username != "root" || !slices.Contains(u.Groups, "system:masters") {
			t.Errorf("who I am: %+v", u)
		}
		may := must[*authorizationv1.SelfSubjectAccessReview](t)(c.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "delete", Resource: "nodes"}},
		}, none))
		if !may.Status.Allowed {
			t.Errorf("what I may: %+v", may.Status)
		}
		rules := must[*authorizationv1.SelfSubjectRulesReview](t)(c.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{
			Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"},
		}, none))
		if r := rules.Status.ResourceRules; len(r) != 1 || !slices.Contains(r[0].Verbs, "*") {
			t.Errorf("all I may: %+v", rules.Status)
		}
	}
}
