package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
	v1qos "k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/kubernetes/pkg/kubelet/qos"

	"github.com/troupe-sh/troupe/runtime/container"
)

const (
	sharesPerCPU = 1024
	sharesMin    = 2
	sharesMax    = 262144
	quotaPeriod  = 100_000 // microseconds
	quotaMin     = 1_000
	podPIDs      = 4096
)

func qosOf(p *corev1.Pod) corev1.PodQOSClass { return v1qos.GetPodQOS(p) }

// cpuShares are CPU requests as a cgroup's weight; none is the least.
func cpuShares(milli int64) uint64 {
	return uint64(min(max(milli*sharesPerCPU/1000, sharesMin), sharesMax))
}

// cpuQuota is a CPU limit as microseconds for each period.
func cpuQuota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*quotaPeriod/1000, quotaMin)
}

// podResources are the settings of a pod's own cgroup: sums, as far as every
// container declares a limit.
func podResources(p *corev1.Pod, m Machine) container.Resources {
	cpuLimited, memoryLimited := true, true
	requests := resource.PodRequests(p, resource.PodResourcesOptions{})
	limits := resource.PodLimits(p, resource.PodResourcesOptions{
		ContainerFn: func(r corev1.ResourceList, _ resource.ContainerType) {
			cpuLimited = cpuLimited && !r.Cpu().IsZero()
			memoryLimited = memoryLimited && !r.Memory().IsZero()
		},
	})
	if resource.IsPodLevelResourcesSet(p) {
		cpuLimited = cpuLimited || !p.Spec.Resources.Limits.Cpu().IsZero()
		memoryLimited = memoryLimited || !p.Spec.Resources.Limits.Memory().IsZero()
	}
	r := container.Resources{PIDs: m.PIDs, HugePages: hugePages(requests)}
	if r.PIDs == 0 {
		r.PIDs = podPIDs
	}
	class := qosOf(p)
	if class == corev1.PodQOSBestEffort {
		r.CPUShares = sharesMin
		return r
	}
	r.CPUShares = cpuShares(requests.Cpu().MilliValue())
	if cpuLimited || class == corev1.PodQOSGuaranteed {
		r.CPUQuota, r.CPUPeriod = cpuQuota(limits.Cpu().MilliValue()), quotaPeriod
	}
	if memoryLimited || class == corev1.PodQOSGuaranteed {
		r.Memory = limits.Memory().Value()
	}
	return r
}

// containerResources are the settings of a container's cgroup and process.
func containerResources(p *corev1.Pod, c *corev1.Container, m Machine) container.Resources {
	cpu, memory := c.Resources.Limits.Cpu(), c.Resources.Limits.Memory()
	if resource.IsPodLevelResourcesSet(p) {
		if cpu.IsZero() {
			cpu = p.Spec.Resources.Limits.Cpu()
		}
		if memory.IsZero() {
			memory = p.Spec.Resources.Limits.Memory()
		}
	}
	request := c.Resources.Requests.Cpu().MilliValue()
	if _, ok := c.Resources.Requests[corev1.ResourceCPU]; !ok {
		request = cpu.MilliValue()
	}
	r := container.Resources{
		CPUShares: cpuShares(request),
		CPUQuota:  cpuQuota(cpu.MilliValue()),
		CPUPeriod: quotaPeriod,
		Memory:    memory.Value(),
		HugePages: hugePages(c.Resources.Limits),
	}
	if r.CPUQuota == 0 {
		r.CPUPeriod = 0
	}
	if m.Memory > 0 {
		r.OOMScoreAdj = qos.GetContainerOOMScoreAdjust(p, c, m.Memory)
	}
	return r
}

// hugePages are limits by page size in the kernel's spelling: 2MB, 1GB.
func hugePages(list corev1.ResourceList) map[string]int64 {
	var pages map[string]int64
	for name, q := range list {
		size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
		if !ok {
			continue
		}
		if pages == nil {
			pages = map[string]int64{}
		}
		pages[strings.ReplaceAll(size, "i", "B")] += q.Value()
	}
	return pages
}
