// Package doctor says whether a machine is fit to run an agent: a table of
// checks over a small probe, each with what it found and, where that is not
// well, what to do. It changes nothing on the machine.
package doctor

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/troupe-sh/troupe/cmd/internal/place"
)

// Status of a check.
type Status string

// The statuses.
const (
	OK   Status = "OK"
	Warn Status = "WARN" // it works, but not everything, or not for ever
	Fail Status = "FAIL" // an agent, or its pods, do not run like this
)

// Finding is what a check found.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"` // what to do about it
}

// Subject is whose place is looked at: an agent that runs, or would be started
// with this.
type Subject struct {
	Dirs       place.Dirs
	Socket     string
	Name       string // of the node; empty: the host's
	Containerd string // address; empty: the machine's own, or one that the agent runs itself
	PodCIDR    netip.Prefix
	Version    string // of the command that asks
}

// Room is what a file system holds.
type Room struct{ Free, Total, FreeFiles, TotalFiles uint64 }

// Agent is how an agent fares.
type Agent struct {
	PID      int // 0: none runs
	Version  string
	Node     string
	Ready    bool
	NotReady string // why
}

// What a probe cannot tell.
var (
	ErrNotFound = errors.New("not there")
	ErrNotRoot  = errors.New("needs root")
)

// Probe looks at the machine. Machine is the real one.
type Probe interface {
	// ReadFile reads one of the kernel's or the system's files. ErrNotFound.
	ReadFile(path string) (string, error)
	// Program finds one that is installed. ErrNotFound.
	Program(name string) (string, error)
	// Output runs one and returns what it prints.
	Output(ctx context.Context, program string, args ...string) (string, error)
	// Room is that of the file system that a directory is on, or would be.
	Room(dir string) (Room, error)
	// OpenFiles is how many files a process may have open at most.
	OpenFiles() (uint64, error)
	// Root tells whether the checks run as root.
	Root() bool
	// Namespaces makes network, IPC and UTS namespaces that go at once. ErrNotRoot.
	Namespaces() error
	// Links makes a pair of links in a network namespace that goes at once. ErrNotRoot.
	Links() error
	// Nftables makes NAT rules in a network namespace that goes at once. ErrNotRoot.
	Nftables() error
	// Addrs are those of the machine's links but lo.
	Addrs() ([]netip.Prefix, error)
	// Now is what the clock says, and whether somebody keeps it right.
	Now() (now time.Time, synchronised bool, err error)
	// Listens tells whether somebody answers at a unix socket. ErrNotFound: it
	// is not there, or nobody does.
	Listens(ctx context.Context, socket string) error
	// Containerd asks for the version of the one at a socket. ErrNotFound: none
	// is there; ErrNotRoot: it is not open to this user.
	Containerd(ctx context.Context, socket string) (string, error)
	// Agent looks for the agent of these directories and asks how it fares; the
	// error says why it does not answer.
	Agent(ctx context.Context, s Subject) (Agent, error)
}

// Examine makes every check, in order.
func Examine(ctx context.Context, p Probe, s Subject) []Finding {
	e := &examination{Probe: p, Subject: s}
	e.agent, e.agentErr = p.Agent(ctx, s)
	findings := make([]Finding, 0, len(checks))
	for _, c := range checks {
		f := c.look(ctx, e)
		f.Check = c.name
		findings = append(findings, f)
	}
	return findings
}

// Fit tells whether no check failed.
func Fit(all []Finding) bool {
	for _, f := range all {
		if f.Status == Fail {
			return false
		}
	}
	return true
}

// examination is one run of the checks.
type examination struct {
	Probe
	Subject
	agent    Agent
	agentErr error
}

// check is one thing that is looked at.
type check struct {
	name string
	look func(context.Context, *examination) Finding
}

func ok(found string) Finding { return Finding{Status: OK, Found: found} }

func warn(found, remedy string) Finding { return Finding{Status: Warn, Found: found, Remedy: remedy} }

func fail(found, remedy string) Finding { return Finding{Status: Fail, Found: found, Remedy: remedy} }

// unknown is the finding of what could not be looked at.
func unknown(err error) Finding {
	if errors.Is(err, ErrNotRoot) {
		return warn("not looked at: that needs root", `run "troupe doctor" as root`)
	}
	return warn("cannot be told: "+err.Error(), "look at it by hand")
}
