package pod

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/container"
)

// Machine is what the rules have to know of the machine that a pod runs on.
type Machine struct {
	Name          string
	Addrs         func() []netip.Addr  // present InternalIPs of the Node, the first is the one of host-network pods; nil: none
	Memory        int64                // bytes: OOM scores are shares of it
	Allocatable   corev1.ResourceList  // of the Node: the limits of what has none
	LogDir        string               // DATA/logs/pods
	ClusterDomain string               // cluster.local if empty
	PIDs          int64                // of a pod; 0: 4,096
	DNS           func() container.DNS // its own resolvers, as they are now; nil: none
}

func (m Machine) addrs() []netip.Addr {
	if m.Addrs == nil {
		return nil
	}
	return m.Addrs()
}

func (m Machine) dns() container.DNS {
	if m.DNS == nil {
		return container.DNS{}
	}
	return m.DNS()
}

// LogDirOf is where a pod's logs are, below Machine.LogDir.
func LogDirOf(p *corev1.Pod) string { return p.Namespace + "_" + p.Name + "_" + string(p.UID) }
