package workers

import (
	"context"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/runtime/container"
)

// Config is what the actor needs.
type Config struct {
	Kernel   mailbox.Kernel
	Log      *slog.Logger
	Node     string // this machine's name
	Registry func() *actor.PID
	Volumes  func() *actor.PID // the actor volumes
	Feed     feed.Feed
	Runtime  container.Runtime
	Disk     Disk
	Worker   actor.Producer // podworker.New(…)
	Sweep    time.Duration  // how often to look for what nobody wants. 0: 30 s
}

// Disk is what pods leave in files. runtime/poddir implements it.
type Disk interface {
	// Pods lists whose records or logs are there.
	Pods(ctx context.Context) ([]types.UID, error)
	// Remove removes a pod's record and logs.
	Remove(ctx context.Context, uid types.UID) error
}
