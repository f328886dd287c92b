// Package container is the port to what runs containers, in the vocabulary of
// the Container Runtime Interface: sandboxes (a pod's namespaces, address and
// cgroup), containers in them, images. Every method may be called again after
// a crash at any point: what is already done is not done twice.
package container

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// What can go wrong. Anything else is the runtime's own failure.
var (
	ErrNotFound = errors.New("not found")
	ErrBusy     = errors.New("busy")
	ErrInvalid  = errors.New("invalid")      // the spec can never work: a command that does not exist, a user unknown to the image
	ErrGone     = errors.New("runtime gone") // no connection; try again
	ErrNotReady = errors.New("not ready")    // RunSandbox, or Start, comes first (again)

	ErrDenied      = errors.New("denied")      // the registry gives it to others, or to nobody
	ErrUnreachable = errors.New("unreachable") // the registry does not answer as one
)

// Pod says whose a sandbox or container is. It is kept with it and read back.
type Pod struct{ Namespace, Name, UID string }

// SandboxSpec is what a pod's containers share.
type SandboxSpec struct {
	ID           string // the pod's UID
	Pod          Pod
	Hostname     string
	Domain       string // of the host name: <subdomain>.<namespace>.svc.<cluster domain>, if it has one
	HostNetwork  bool
	HostIPC      bool
	HostPID      bool
	SharePID     bool // one process namespace, an init process of Troupe as process 1
	DNS          DNS  // becomes resolv.conf
	Hosts        []Host
	Sysctls      map[string]string
	HostPorts    []HostPort
	Resources    Resources // of the pod as a whole: limits its cgroup
	QOS          string    // Guaranteed, Burstable, BestEffort: where its cgroup stands
	RuntimeClass string
}

// DNS is a resolver configuration. Zero means the machine's own.
type DNS struct {
	Servers, Searches, Options []string
}

// Host is a line of /etc/hosts.
type Host struct {
	Addr  netip.Addr
	Names []string
}

// HostPort sends a port of the machine to a port of the pod.
type HostPort struct {
	Protocol      string // TCP, UDP
	HostIP        netip.Addr
	HostPort      uint16
	ContainerPort uint16
}

// Resources are cgroup settings; zero fields set nothing.
type Resources struct {
	CPUShares      uint64 // cgroup v1 scale; the adapter converts
	CPUQuota       int64  // microseconds for each CPUPeriod
	CPUPeriod      uint64
	Memory         int64 // bytes
	MemoryReserved int64
	PIDs           int64
	OOMScoreAdj    int
	HugePages      map[string]int64
}

// Network is this machine's part of the pod network (DESIGN 7).
type Network struct {
	PodCIDR     netip.Prefix // addresses of this machine's pods; the first is the machine's own
	ClusterCIDR netip.Prefix // all pods of all machines
	ServiceCIDR netip.Prefix // may be invalid: no services yet
	MTU         int          // 0: of the machine's default route
}

// Sandbox is one as it stands.
type Sandbox struct {
	ID    string
	Pod   Pod
	Addr  netip.Addr // invalid with HostNetwork
	Ready bool       // false after a reboot or when somebody removed a part of it: RunSandbox mends it
}

// Mount puts a path of the machine into a container.
type Mount struct {
	HostPath, ContainerPath string
	ReadOnly                bool
	Propagation             string // "", rslave, rshared
}

// Spec is one container.
type Spec struct {
	ID                     string // ContainerID
	Sandbox                string
	Pod                    Pod
	Name                   string
	Attempt                uint32   // restarts before this one
	Image                  string   // Image.ID or a name
	Command                []string // replaces the image's entry point
	Args                   []string // replaces the image's command
	WorkingDir             string
	Env                    []string // NAME=value, after the image's
	Mounts                 []Mount
	Devices                []string
	Resources              Resources
	Stdin                  bool
	StdinOnce              bool
	TTY                    bool
	LogPath                string // CRI-format log, written by the keeper
	Hash                   string // of the container's spec in the pod, to tell a changed wish
	Security               Security
	TerminationMessagePath string // a file made for it is mounted there; Status.Message reads it
}

// Security is a container's confinement.
type Security struct {
	User         string // "", uid, uid:gid or a name of the image
	RunAsGroup   *int64
	Groups       []int64
	AddCaps      []string // without CAP_; ALL allowed
	DropCaps     []string
	Privileged   bool
	ReadOnlyRoot bool
	NoNewPrivs   bool
	Seccomp      string // RuntimeDefault, Unconfined, localhost/<file in DATA/seccomp>
	MaskedPaths  bool   // the usual masked and read-only paths of /proc
	RunAsNonRoot bool   // refuse to start as user 0
}

// State of a container.
type State string

// The states.
const (
	Created State = "Created"
	Running State = "Running"
	Exited  State = "Exited"
)

// Container is one as it stands.
type Container struct {
	ID                     string
	Sandbox                string
	Pod                    Pod
	Name                   string
	Attempt                uint32
	Hash                   string
	Image                  string // as asked for
	ImageID                string // digest that it resolved to
	ImageRef               string // the same as a status shows it: see Image.Ref
	State                  State
	PID                    uint32
	ExitCode               uint32
	ExitKnown              bool // false: the machine rebooted or the runtime lost it
	OOMKilled              bool
	CreatedAt              time.Time
	StartedAt              time.Time
	FinishedAt             time.Time
	LogPath                string
	TerminationMessagePath string         // on the machine
	StopSignal             syscall.Signal // what the image asks to be stopped with, SIGTERM if nothing
}

// Event is a change that the runtime saw.
type Event struct {
	Kind        EventKind
	ContainerID string
	ExitCode    uint32
	At          time.Time
}

// EventKind names an Event.
type EventKind uint8

// The kinds of Event.
const (
	_               EventKind = iota
	ContainerExited           // its first process ended
	ContainerOOM              // the kernel killed in it for memory
	Gap                       // events may have been missed (connection lost and found): list again
	Removed                   // a container or sandbox was removed, by whomever
)

// ExecSpec is a further process in a running container.
type ExecSpec struct {
	Command        []string
	TTY            bool
	Stdin          io.Reader // nil: none
	Stdout, Stderr io.Writer
	Resize         <-chan Size
}

// Size of a terminal, in characters.
type Size struct{ Width, Height uint16 }

// Image is one that is present.
type Image struct {
	ID      string   // sha256:… of its configuration
	Names   []string // normalised: docker.io/library/nginx:latest
	Digests []string // name@sha256:…
	Size    int64    // bytes
	User    string
	At      time.Time // its newest name came

	// Pulled are the names and digests that a registry gave, each with the
	// fingerprints of the credentials that it gave them for. What is not in it
	// was imported, and is anybody's.
	Pulled map[string][]string
}

// Disk is the file system that holds the images.
type Disk struct{ Size, Free int64 } // bytes

// Usage is what a container has used. CPU is cumulative.
type Usage struct {
	ContainerID string
	Pod         Pod
	Name        string
	StartedAt   time.Time
	CPU         time.Duration
	Memory      int64 // working set, bytes
	At          time.Time
}

// Runtime is the port.
type Runtime interface {
	// Version names the runtime that answers, as a Node reports it:
	// containerd://1.6.20. ErrGone: none answers.
	Version(ctx context.Context) (string, error)

	// Configure tells where pods of this machine get their addresses. It is
	// called before the first RunSandbox, and again whenever it changes.
	Configure(ctx context.Context, n Network) error

	// RunSandbox makes or mends the sandbox and returns it as it stands.
	RunSandbox(ctx context.Context, s SandboxSpec) (Sandbox, error)
	// RemoveSandbox removes it with all its containers. Unknown IDs are no error.
	RemoveSandbox(ctx context.Context, id string) error
	Sandboxes(ctx context.Context) ([]Sandbox, error)
	// Dial connects to a TCP port on the loopback of a sandbox, as its own
	// processes do. ErrNotFound: there is no such sandbox.
	Dial(ctx context.Context, sandbox string, port uint16) (net.Conn, error)

	// Create makes the container, not yet running. ErrNotFound: no such image.
	// ErrNotReady: its sandbox is not.
	Create(ctx context.Context, s Spec) error
	// Start runs it. Starting a running container is no error; one that has
	// exited never runs again (ErrNotReady): the next attempt is a new container.
	// ErrInvalid: its command cannot be run.
	Start(ctx context.Context, id string) error
	// Signal sends sig to its first process, or to all of its processes for
	// SIGKILL. What does not run hears nothing, and that is no error.
	Signal(ctx context.Context, id string, sig syscall.Signal) error
	// Remove kills what still runs and removes the container. Unknown IDs are no error.
	Remove(ctx context.Context, id string) error
	Container(ctx context.Context, id string) (Container, error)
	Containers(ctx context.Context) ([]Container, error)

	// Subscribe calls f, one call at a time, with what happens from now on
	// until stop is called. It reconnects by itself and reports Gap then.
	Subscribe(f func(Event)) (stop func())

	// Exec runs a process and returns its exit code when it ended. It is killed
	// when ctx ends. ErrNotReady: the container does not run.
	Exec(ctx context.Context, id string, e ExecSpec) (int, error)
	// Stdin opens the standard input of a container made with Stdin; closing it
	// does not end it. ErrNotReady: the container does not run. ErrInvalid: it
	// has none.
	Stdin(ctx context.Context, id string) (io.WriteCloser, error)
	// CloseStdin ends the standard input of a container made with Stdin: it
	// stays open across those who write to it until then.
	CloseStdin(ctx context.Context, id string) error
	// Resize sets the size of the terminal of a container made with TTY.
	Resize(ctx context.Context, id string, size Size) error
	// Usage of what runs, by container ID.
	Usage(ctx context.Context) ([]Usage, error)

	// Image finds a present image by name, digest or ID.
	Image(ctx context.Context, name string) (Image, error)
	// Images lists them by ID.
	Images(ctx context.Context) ([]Image, error)
	// Import reads an image archive (docker save or OCI layout, tar, possibly gzipped) and returns what it held.
	Import(ctx context.Context, archive io.Reader) ([]Image, error)
	// Pull asks the registry of a name what it now stands for and brings what is
	// not here yet. What an earlier call brought is used, also one that failed or
	// whose agent died. p, which may be nil, tells how far it is. ErrInvalid: no
	// name of an image. ErrNotFound, ErrDenied, ErrUnreachable: the registry's answer.
	Pull(ctx context.Context, name string, auth Auth, p *Progress) (Image, error)
	// ImageDisk is the room that images have.
	ImageDisk(ctx context.Context) (Disk, error)
	// RemoveImage removes a name, or with an ID all names of that image.
	// ErrNotFound: nothing has it.
	RemoveImage(ctx context.Context, name string) error
}
