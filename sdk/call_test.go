package sdk

import (
	"testing"

	"github.com/troupe-sh/troupe/api"
)

func TestEveryKindHasItsTypeInTheSDK(t *testing.T) {
	for _, k := range api.Kinds() {
		if !scheme.Recognizes(k.GroupVersionKind) {
			t.Errorf("the SDK does not know %s: add its group to scheme", k.GroupVersionKind)
		}
	}
}
