package machine

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/host"
)

const (
	checkEvery  = 5 * time.Second
	reportEvery = 5 * time.Minute

	podsMax      = 110
	pidsReserved = 5 // per cent, likewise what Kubernetes' agent keeps free
)

// state is what the actor knows of its machine. Its methods read no clock and
// do no I/O.
type state struct {
	config     Config
	facts      host.Facts
	factsErr   error  // they could not be read again
	runtime    string // its version, as last heard
	runtimeErr error  // it does not answer
	checked    bool   // facts are known
	network    container.Network
	networkErr error
	configured bool // the runtime has network
	configures bool // and is being told
	refused    bool // telling it failed; the next check tries again
}

// wanted is the network that the runtime should have; false while the Node has
// no pod CIDR.
func (s *state) wanted(n *corev1.Node) (container.Network, bool) {
	if n == nil {
		return container.Network{}, false
	}
	cidr, err := netip.ParsePrefix(n.Spec.PodCIDR)
	if err != nil {
		return container.Network{}, false
	}
	return container.Network{PodCIDR: cidr, ClusterCIDR: s.config.ClusterCIDR, ServiceCIDR: s.config.ServiceCIDR, MTU: s.config.MTU}, true
}

// configure returns the network to tell the runtime of; false if there is none
// or it knows.
func (s *state) configure(n *corev1.Node) (container.Network, bool) {
	net, ok := s.wanted(n)
	if !ok || s.configures || s.refused || s.configured && net == s.network {
		return net, false
	}
	s.network, s.configures, s.configured = net, true, false
	return net, true
}

// labels are those that every machine has, and the operator's.
func (s *state) labels() map[string]string {
	l := map[string]string{
		corev1.LabelHostname:   s.config.Node,
		corev1.LabelOSStable:   s.facts.OS,
		corev1.LabelArchStable: s.facts.Arch,
	}
	maps.Copy(l, s.config.Labels)
	return l
}

// fresh is a Node object that does not exist yet.
func (s *state) fresh(now time.Time) *corev1.Node {
	n := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: s.config.Node, Labels: s.labels()},
		Spec:       corev1.NodeSpec{Taints: s.config.Taints},
	}
	n.Status = s.status(n, now)
	return n
}

// labeled is n with the labels that it lacks, or nil if it has them.
func (s *state) labeled(n *corev1.Node) *corev1.Node {
	want := s.labels()
	missing := false
	for k, v := range want {
		missing = missing || n.Labels[k] != v
	}
	if !missing {
		return nil
	}
	c := n.DeepCopy()
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	maps.Copy(c.Labels, want)
	return c
}

// status is the machine's, on top of what its Node object has.
func (s *state) status(n *corev1.Node, now time.Time) corev1.NodeStatus {
	st := *n.Status.DeepCopy()
	st.Capacity, st.Allocatable = s.capacity()
	st.Addresses = nil
	if s.facts.Addr.IsValid() {
		st.Addresses = append(st.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: s.facts.Addr.String()})
	}
	st.Addresses = append(st.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: s.config.Node})
	st.NodeInfo.MachineID = s.facts.MachineID
	st.NodeInfo.SystemUUID = s.facts.SystemUUID
	st.NodeInfo.BootID = s.facts.BootID
	st.NodeInfo.KernelVersion = s.facts.Kernel
	st.NodeInfo.OSImage = s.facts.OSImage
	st.NodeInfo.OperatingSystem = s.facts.OS
	st.NodeInfo.Architecture = s.facts.Arch
	st.NodeInfo.KubeletVersion = s.config.Version
	if s.runtime != "" {
		st.NodeInfo.ContainerRuntimeVersion = s.runtime
	}
	for _, c := range s.conditions(n) {
		set(&st, c, now)
	}
	return st
}

func (s *state) capacity() (all, allocatable corev1.ResourceList) {
	pods := s.config.MaxPods
	if pods == 0 {
		pods = podsMax
	}
	all, allocatable = s.facts.Capacity()
	all[corev1.ResourcePods] = *resource.NewQuantity(pods, resource.DecimalSI)
	allocatable[corev1.ResourcePods] = all[corev1.ResourcePods]
	return all, allocatable
}

// conditions are the machine's, in Kubernetes' order and words: Ready is last.
func (s *state) conditions(n *corev1.Node) []corev1.NodeCondition {
	f := s.facts
	pressure := func(t corev1.NodeConditionType, under bool, bad, good [2]string) corev1.NodeCondition {
		if under {
			return corev1.NodeCondition{Type: t, Status: corev1.ConditionTrue, Reason: bad[0], Message: bad[1]}
		}
		return corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: good[0], Message: good[1]}
	}
	ready := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue,
		Reason: "KubeletReady", Message: "kubelet is posting ready status",
	}
	if why := s.unready(n); len(why) > 0 {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", strings.Join(why, ", ")
	}
	return []corev1.NodeCondition{
		pressure(corev1.NodeMemoryPressure, f.Memory > 0 && f.MemoryFree < host.MemoryReserved,
			[2]string{"KubeletHasInsufficientMemory", "kubelet has insufficient memory available"},
			[2]string{"KubeletHasSufficientMemory", "kubelet has sufficient memory available"}),
		pressure(corev1.NodeDiskPressure, f.Storage > 0 && f.StorageFree < f.Storage/100*host.StorageReserved,
			[2]string{"KubeletHasDiskPressure", "kubelet has disk pressure"},
			[2]string{"KubeletHasNoDiskPressure", "kubelet has no disk pressure"}),
		pressure(corev1.NodePIDPressure, f.PIDsMax > 0 && f.PIDsMax-f.PIDs < f.PIDsMax/100*pidsReserved,
			[2]string{"KubeletHasInsufficientPID", "kubelet has insufficient PID available"},
			[2]string{"KubeletHasSufficientPID", "kubelet has sufficient PID available"}),
		ready,
	}
}

// unready says why no pod could run here.
func (s *state) unready(n *corev1.Node) []string {
	var why []string
	if s.factsErr != nil {
		why = append(why, "the machine cannot be looked at: "+s.factsErr.Error())
	}
	if s.runtimeErr != nil {
		why = append(why, "container runtime is down: "+s.runtimeErr.Error())
	}
	switch _, ok := s.wanted(n); {
	case !ok:
		why = append(why, "container runtime network not ready: the machine has no pod CIDR yet")
	case s.networkErr != nil:
		why = append(why, "container runtime network not ready: "+s.networkErr.Error())
	case !s.configured:
		why = append(why, "container runtime network not ready: it is being configured")
	}
	return why
}

// set puts c into st; its transition time moves only with its status.
func set(st *corev1.NodeStatus, c corev1.NodeCondition, now time.Time) {
	at := metav1.NewTime(now.Truncate(time.Second))
	c.LastHeartbeatTime, c.LastTransitionTime = at, at
	i := slices.IndexFunc(st.Conditions, func(old corev1.NodeCondition) bool { return old.Type == c.Type })
	if i < 0 {
		st.Conditions = append(st.Conditions, c)
		return
	}
	if st.Conditions[i].Status == c.Status {
		c.LastTransitionTime = st.Conditions[i].LastTransitionTime
	}
	st.Conditions[i] = c
}

// worth tells whether after says something that before does not.
func worth(before, after corev1.NodeStatus) bool {
	return !equality.Semantic.DeepEqual(silent(before), silent(after))
}

// silent is a status without what changes by time alone.
func silent(s corev1.NodeStatus) corev1.NodeStatus {
	s = *s.DeepCopy()
	for i := range s.Conditions {
		s.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return s
}

func isReady(s corev1.NodeStatus) bool {
	return slices.ContainsFunc(s.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
