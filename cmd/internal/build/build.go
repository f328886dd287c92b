// Package build says what a binary was built from.
package build

import (
	"runtime/debug"
	"strings"
)

// Version is the binary's own: a release, or the commit that it was built from.
func Version() string {
	b, ok := debug.ReadBuildInfo()
	if !ok || b.Main.Version == "" {
		return "unknown"
	}
	return b.Main.Version
}

// Kubernetes is the release whose API the binary speaks, as the linked
// modules tell it: k8s.io/api v0.36.3 belongs to v1.36.3.
func Kubernetes() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, d := range b.Deps {
		if d.Path == "k8s.io/api" {
			return "v1" + strings.TrimPrefix(d.Version, "v0")
		}
	}
	return "unknown"
}
