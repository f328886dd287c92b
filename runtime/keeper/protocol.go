// Package keeper speaks with the keeper: the one small process that reads what
// containers print and writes it to their log files. The agent starts it, and
// it outlives the agent, so that no container ever blocks on a full pipe or
// loses a line because an agent was away. And it starts the agent again that
// ended without having been told to. Package daemon is the keeper itself.
//
// On the socket RUN-DIR/keeper.sock each request is a line of JSON and is
// answered by one. Every request may be sent again.
package keeper

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
)

// Version of the protocol. A keeper of another one is replaced.
const Version = 2

// What kubelet keeps of a container's log, for the fields of [Log] left zero.
const (
	DefaultMaxSize  = 10 << 20
	DefaultMaxFiles = 5
)

// Log is a container whose output becomes a log file.
type Log struct {
	ContainerID string `json:"containerID"`
	Stdout      string `json:"stdout"`           // FIFO; made when it is not there
	Stderr      string `json:"stderr,omitempty"` // FIFO; none with a terminal
	Path        string `json:"path"`             // of the log, in the format of the Container Runtime Interface
	TTY         bool   `json:"tty,omitempty"`
	MaxSize     int64  `json:"maxSize,omitempty"`  // bytes before it is rotated
	MaxFiles    int    `json:"maxFiles,omitempty"` // the current one included
}

// An ID becomes a file name.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$`)

// ErrInvalid is a Log that cannot be followed as it stands.
var ErrInvalid = errors.New("invalid")

// Check tells what is wrong with l.
func (l Log) Check() error {
	switch {
	case !idPattern.MatchString(l.ContainerID):
		return fmt.Errorf("container ID %q: %w: letters, digits, '_', '.' and '-' only", l.ContainerID, ErrInvalid)
	case !filepath.IsAbs(l.Path):
		return fmt.Errorf("container %s: log path %q: %w: must be absolute", l.ContainerID, l.Path, ErrInvalid)
	case !filepath.IsAbs(l.Stdout):
		return fmt.Errorf("container %s: stdout %q: %w: must be the absolute path of a FIFO", l.ContainerID, l.Stdout, ErrInvalid)
	case l.Stderr != "" && !filepath.IsAbs(l.Stderr):
		return fmt.Errorf("container %s: stderr %q: %w: must be the absolute path of a FIFO", l.ContainerID, l.Stderr, ErrInvalid)
	case l.MaxSize < 0 || l.MaxFiles < 0:
		return fmt.Errorf("container %s: %w: maxSize and maxFiles must not be negative", l.ContainerID, ErrInvalid)
	}
	return nil
}

// FIFOs that l is read from.
func (l Log) FIFOs() []string {
	if l.TTY || l.Stderr == "" || l.Stderr == l.Stdout {
		return []string{l.Stdout}
	}
	return []string{l.Stdout, l.Stderr}
}

// Agent is the process that the keeper starts again. It has ended in order when
// its PIDFile is gone: whoever stops it removes that first.
type Agent struct {
	PID     int      `json:"pid"`
	Args    []string `json:"args"` // the program's path first
	Dir     string   `json:"dir"`  // in which it runs
	Env     []string `json:"env,omitempty"`
	Output  string   `json:"output"` // file to which standard output and error go
	PIDFile string   `json:"pidFile"`
}

// Check tells what is wrong with a.
func (a Agent) Check() error {
	switch {
	case a.PID <= 0:
		return fmt.Errorf("agent: %w: process id %d", ErrInvalid, a.PID)
	case len(a.Args) == 0 || !filepath.IsAbs(a.Args[0]):
		return fmt.Errorf("agent %d: %w: its program must be named by an absolute path", a.PID, ErrInvalid)
	case !filepath.IsAbs(a.Output) || !filepath.IsAbs(a.PIDFile):
		return fmt.Errorf("agent %d: %w: output and pidFile must be absolute paths", a.PID, ErrInvalid)
	}
	return nil
}

// Op is what a request asks for.
type Op string

// The operations.
const (
	OpPing   Op = "ping"
	OpFollow Op = "follow" // Log
	OpDrain  Op = "drain"  // ContainerID: answer when what it printed until its end is in the file
	OpForget Op = "forget" // ContainerID: drain, then follow it no longer
	OpList   Op = "list"
	OpGuard  Op = "guard"  // Agent: start it again when it ends without having been told to; the last one said is the one
	OpStop   Op = "stop"   // end, leaving everything for the next keeper
	OpAttach Op = "attach" // ContainerID: until the connection ends, what it prints is in the file at once
)

// Request is one line from the client.
type Request struct {
	Op          Op     `json:"op"`
	ContainerID string `json:"containerID,omitempty"`
	Log         *Log   `json:"log,omitempty"`
	Agent       *Agent `json:"agent,omitempty"`
}

// Response is one line to the client.
type Response struct {
	Version int    `json:"version"`
	Error   string `json:"error,omitempty"`
	Logs    []Log  `json:"logs,omitempty"` // sorted by ContainerID
}

// Socket is where the keeper of a run directory listens.
func Socket(runDir string) string { return filepath.Join(runDir, "keeper.sock") }
