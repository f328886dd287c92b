// Package pod is what the actors of the node tree share about pods: the words
// that they say to each other, and the pure rules of Kubernetes' own agent that
// turn a pod into specifications for the runtime, and what the runtime has into
// the pod's status.
package pod

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
)

// Found is what this machine holds of one pod.
type Found struct {
	Sandbox    *container.Sandbox // nil: none
	Containers []container.Container
}

// Between workers and a pod's worker.
type (
	// Hello is what a child asks its parent when it starts, also after a
	// restart. The reply is Keep, or Run to a container's worker.
	Hello struct{}

	// Keep gives a pod's worker the pod and what is there of it already.
	Keep struct {
		Pod     *corev1.Pod
		Gone    bool // the registry has no such pod any more: see Wish
		Found   Found
		Sources api.Sources
	}

	// Wish is the pod as the registry now has it, with what it refers to. Gone:
	// it has none any more; what is left of it here has to end at once.
	Wish struct {
		Pod     *corev1.Pod
		Gone    bool
		Sources api.Sources
	}

	// Look is what the machine was seen to hold of the pod. It may be old when
	// it arrives: who believes otherwise asks the runtime.
	Look struct{ Found Found }

	// Report is a pod's status as its worker sees it. The reply is Written once
	// this one or a later one is in the registry.
	Report struct {
		UID    types.UID
		Status *corev1.PodStatus
		Number uint64
	}

	// Written says that the registry has the report of that number.
	Written struct{ Number uint64 }

	// Ended says that nothing of the pod is left on this machine but its
	// object.
	Ended struct{ UID types.UID }

	// Note is something that people should know of a pod: it becomes an Event.
	Note struct {
		Type      string // Normal, Warning
		Reason    string
		Message   string
		Container string // empty: of the pod as a whole
		Pod       *corev1.Pod
		At        time.Time
	}
)

// Between a pod's worker and a container's.
type (
	// Run gives a container's worker what to run and what is there already.
	Run struct {
		Pod     *corev1.Pod
		Name    string
		Found   []container.Container   // of this name
		Old     *corev1.ContainerStatus // as the registry has it
		Sources api.Sources
		Done    bool // it is an init container that has done its work in this sandbox
	}

	// Revise is a changed pod, or what it refers to has changed.
	Revise struct {
		Pod     *corev1.Pod
		Sources api.Sources
	}

	// Enter says that the sandbox is there and volumes are mounted: containers
	// may be made. Its number is higher than that of any Enter or Leave before.
	Enter struct {
		Number uint64
		Addr   netip.Addr // of the pod
		Mounts []container.Mount
	}

	// Leave says that the sandbox has to be made anew: the container must end
	// within Grace, and an init container runs again in the next. The answer is
	// a ContainerReport with this number as Left.
	Leave struct {
		Number uint64
		Grace  time.Duration
	}

	// Stop ends the container for good after Grace at the latest; nothing is
	// started any more. Again with a shorter grace shortens it.
	Stop struct {
		Grace    time.Duration
		Signaled bool // it has had its signal already, in an agent's earlier life
	}

	// Seen is Look for one container.
	Seen struct{ Found []container.Container }

	// ContainerReport is a container as its worker sees it.
	ContainerReport struct {
		Status   corev1.ContainerStatus
		Over     bool   // it has ended and by its policy will not run again
		Lost     uint64 // the sandbox of the Enter of this number is not there
		Left     uint64 // nothing of it runs since the Leave of this number
		Stopped  bool   // nothing of it runs nor ever will
		Signaled bool   // it has had the signal of Stop, or needs none

		ID      string    // of the container that the status is of
		Since   time.Time // it runs since then
		Adopted bool      // it ran before its worker did
		Ending  bool      // it is being ended, for whatever reason
		Heals   bool      // a probe ended it, and it runs again whatever its exit code says
	}

	// Health is what a probe of the container has come to.
	Health struct {
		ID      string // of the container that was asked
		Kind    ProbeKind
		Healthy bool
	}
)

// Between a pod's worker and a probe.
type (
	// Examine lets a probe ask a container from now on, instead of whatever it
	// asked before. What it comes to is told as Health.
	Examine struct {
		Kind    ProbeKind
		Target  Target
		Since   time.Time // it runs since then
		Adopted bool      // it ran before its worker did: there is no hurry
	}

	// Rest lets it ask nothing.
	Rest struct{}
)

// With the actor images.
type (
	// FindImage asks for an image of a pod by its policy. Whoever asks for
	// another one no longer wants the one before. The reply is ImageFound, after
	// ImagePulling if a registry is asked; and again when an image that was not to
	// be had has come by other ways.
	FindImage struct {
		Name   string
		Policy corev1.PullPolicy
		Pod    *corev1.Pod
	}

	// PullImage asks for an image to be pulled, whatever is here. The replies are
	// ImagePulling, ImageStep now and then, and ImageFound.
	PullImage struct {
		Name string
		Auth container.Auth
	}

	// ImagePulling says that a registry is asked, or will be in its turn.
	ImagePulling struct {
		Name    string
		Lacking []string // imagePullSecrets that there are none of
	}

	// ImageStep is how far the pull is.
	ImageStep struct {
		Name string
		Step container.Step
	}

	// ImageFound answers FindImage. Asked: by its registry, in so long; else by
	// what is here. Err is container.ErrNotFound when it is not there.
	ImageFound struct {
		Name  string
		Image container.Image
		Asked bool
		Took  time.Duration
		Err   error
	}

	// ImagesLoaded tells images that some have come, by an import.
	ImagesLoaded struct{}
)

// With the actor volumes.
type (
	// Mount asks for a pod's volumes; again, for files that are as its sources
	// now are. The reply is Mounted.
	Mount struct {
		Pod     *corev1.Pod
		Sources api.Sources
	}

	// Mounted answers Mount: the mounts of each container by its name.
	Mounted struct {
		UID    types.UID
		Mounts map[string][]container.Mount
		Err    error
	}

	// Unmount asks to take down what a pod had mounted. The reply is Unmounted.
	Unmount struct{ UID types.UID }

	// Unmounted answers Unmount.
	Unmounted struct {
		UID types.UID
		Err error
	}

	// Volumes asks who has any. The reply is VolumesOf.
	Volumes struct{}

	// VolumesOf answers Volumes.
	VolumesOf struct {
		UIDs []types.UID
		Err  error
	}
)
