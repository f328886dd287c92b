package containerworker

import (
	"context"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Config is what the actor needs.
type Config struct {
	Kernel  mailbox.Kernel
	Log     *slog.Logger
	Runtime container.Runtime
	Disk    Disk
	Hooks   Hooks
	Images  func() *actor.PID // the actor images
	Machine pod.Machine
	Backoff time.Duration // before the second restart; doubles up to 5 minutes. 0: 10 s
}

// Hooks does what containers want done after their start and before their end.
// runtime/probe implements it.
type Hooks interface {
	Hook(ctx context.Context, t pod.Target, h *corev1.LifecycleHandler) error
}

// Disk is what containers leave in files. runtime/poddir implements it.
type Disk interface {
	// TerminationMessage is what a container that ended had to say, by its
	// terminationMessagePolicy. What cannot be read is no message.
	TerminationMessage(ctx context.Context, c container.Container, policy corev1.TerminationMessagePolicy) string
	// RemoveLog removes an attempt's log with its rotated parts.
	RemoveLog(ctx context.Context, path string) error
}
