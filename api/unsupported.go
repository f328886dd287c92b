package api

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Unsupported is a placeholder until the table lands.
func Unsupported(o Object) (warnings []string, errs field.ErrorList) { return nil, nil }
