package machine

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/asynkron/protoactor-go/actor"
	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/cluster/feed"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/host"
)

// Config is what the actor needs.
type Config struct {
	Kernel   mailbox.Kernel
	Log      *slog.Logger
	Node     string // this machine's name
	Registry func() *actor.PID
	Feed     feed.Feed
	Runtime  container.Runtime
	Host     Host

	Labels      map[string]string // further ones of the Node object
	Taints      []corev1.Taint    // of a Node object that does not exist yet
	MaxPods     int64             // 0: 110
	Version     string            // Troupe's own, reported as the kubelet's
	ClusterCIDR netip.Prefix      // addresses of all pods of all machines
	ServiceCIDR netip.Prefix      // may be invalid
	MTU         int               // 0: of the machine's default route
}

// Host tells what the machine is. runtime/host implements it.
type Host interface {
	Facts(ctx context.Context) (host.Facts, error)
}
