package podworker

import (
	"context"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Config is what the actor needs.
type Config struct {
	Kernel    mailbox.Kernel
	Log       *slog.Logger
	Runtime   container.Runtime
	Disk      Disk
	Volumes   func() *actor.PID // the actor volumes
	Container actor.Producer    // containerworker.New(…)
	Probe     actor.Producer    // probe.New(…)
	Machine   pod.Machine
}

// Disk is what a pod's worker keeps in files. runtime/poddir implements it.
type Disk interface {
	// SaveGrace records that a pod's containers have had their signal and are
	// killed after left, on the machine's monotonic clock.
	SaveGrace(ctx context.Context, uid types.UID, left time.Duration) error
	// Grace is what is left of it now; false if there is no record of this boot.
	Grace(ctx context.Context, uid types.UID) (left time.Duration, ok bool, err error)
	// Remove removes the pod's record and logs.
	Remove(ctx context.Context, uid types.UID) error
}
