package pod

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Usage is what a machine and its pods use, by two looks at them. It is shared
// by all who asked: nobody changes it.
type Usage struct {
	Node Rates // of the whole machine, whoever uses it
	Pods map[types.UID]PodUsage
}

// PodUsage is one pod's: all of its running containers, or it is not there.
type PodUsage struct {
	Containers []ContainerUsage // by name
	At         time.Time        // the earliest of theirs
	Window     time.Duration
}

// ContainerUsage is one container's.
type ContainerUsage struct {
	Name string
	Rates
}

// Rates are what is used of CPU, over a window, and of memory at its end.
type Rates struct {
	CPU    int64 // billionths of a core
	Memory int64 // working set, bytes
	At     time.Time
	Window time.Duration // 0: not known yet
}

// Between who shows usage and the actor that measures it.
type (
	// AskUsage asks for what is used now. The reply is UsageOf.
	AskUsage struct{}

	// UsageOf answers; Usage is nil if Err is not.
	UsageOf struct {
		Usage *Usage
		Err   error
	}
)
