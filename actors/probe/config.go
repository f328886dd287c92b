package probe

import (
	"context"
	"log/slog"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Config is what the actor needs.
type Config struct {
	Kernel mailbox.Kernel
	Log    *slog.Logger
	Port   Port
}

// Port asks containers. runtime/probe implements it.
type Port interface {
	// Probe asks once, and answers within the probe's time-out.
	Probe(ctx context.Context, t pod.Target, p *corev1.Probe) pod.Answer
}
