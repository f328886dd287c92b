// Package place says where an agent keeps its things on a machine, so that
// the agent and whoever stops or removes it look in the same places.
package place

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The directories of an agent that was told no others.
const (
	DataDir = "/var/lib/troupe"
	RunDir  = "/run/troupe"
)

// Dirs are the two directories of one agent.
type Dirs struct {
	Data string // survives a reboot
	Run  string // does not
}

// Resolve makes both directories absolute and free of symbolic links, so that
// whoever unmounts and removes what stands in them sees what the kernel sees.
// It refuses what cannot be an agent's own: both are removed with it.
func (d Dirs) Resolve() (Dirs, error) {
	for flag, dir := range map[string]*string{"--data-dir": &d.Data, "--run-dir": &d.Run} {
		if *dir == "" {
			return d, fmt.Errorf("%s is empty: name a directory", flag)
		}
		path, err := resolve(*dir)
		if err != nil {
			return d, fmt.Errorf("%s: %w", flag, err)
		}
		if strings.Count(path, "/") < 2 {
			return d, fmt.Errorf("%s %s is a directory of the system: \"troupe down\" removes it, so give the agent one of its own, such as %s", flag, path, filepath.Join(path, "troupe"))
		}
		*dir = path
	}
	if d.Data == d.Run || strings.HasPrefix(d.Data, d.Run+"/") {
		return d, fmt.Errorf("--data-dir %s stands in --run-dir %s, which \"troupe down\" removes: choose another", d.Data, d.Run)
	}
	return d, nil
}

// What an agent puts into its directories, and what its operator may have put
// there before: a log, seccomp profiles, the root of a file system.
var (
	inData = []string{
		"addresses", "agent.json.new", "containerd", "journal", "keeper.log", "lock", "logs", "lost+found", "pods", "seal.key", "seccomp", "trouped.log",
	}
	inRun = []string{"containerd", "io", "keeper", "keeper.sock", "netns", "troupe.pid", "troupe.pid.new", "troupe.sock"}
)

// Own refuses directories that hold what is not an agent's, before one starts
// there for the first time: "troupe down --purge" removes them.
func (d Dirs) Own() error {
	s, known, err := d.Read()
	if err != nil {
		return err
	}
	if !known {
		if err := onlyHolds("--data-dir", d.Data, inData); err != nil {
			return err
		}
	}
	if s.RunDir == d.Run {
		return nil
	}
	return onlyHolds("--run-dir", d.Run, inRun)
}

func onlyHolds(flag, dir string, known []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", flag, err)
	}
	for _, e := range entries {
		if !slices.Contains(known, e.Name()) && !strings.HasPrefix(e.Name(), "seal.key.new-") {
			return fmt.Errorf("%s %s holds %q, which is not of an agent; \"troupe down\" removes the directory, so give the agent one of its own, such as %s",
				flag, dir, e.Name(), filepath.Join(dir, "troupe"))
		}
	}
	return nil
}

// resolve follows the links of the part of a path that is there.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for at := path; ; at = filepath.Dir(at) {
		found, err := filepath.EvalSymlinks(at)
		if err == nil {
			return filepath.Join(found, rest), nil
		}
		if !errors.Is(err, os.ErrNotExist) || at == "/" {
			return "", err
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// Name is what an agent calls its cgroup and its containerd namespace unless
// told otherwise: no two data directories have the same.
func (d Dirs) Name() string {
	if d.Data == DataDir {
		return "troupe"
	}
	sum := sha256.Sum256([]byte(d.Data))
	return "troupe-" + hex.EncodeToString(sum[:4])
}

// Network names the network namespace of the calling process, and the boot
// that the name belongs to.
func Network() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	ns, err := os.Readlink("/proc/self/ns/net")
	return strings.TrimSpace(string(boot)) + " " + ns, err
}

// Socket is where the agent listens unless told otherwise.
func (d Dirs) Socket() string { return filepath.Join(d.Run, "troupe.sock") }

// PIDFile holds the agent's process id.
func (d Dirs) PIDFile() string { return filepath.Join(d.Run, "troupe.pid") }

// Log is where an agent in the background writes.
func (d Dirs) Log() string { return filepath.Join(d.Data, "trouped.log") }

// Containerd is the directory of the containerd that the agent runs itself
// when the machine has none: configuration, state and socket.
func (d Dirs) Containerd() string { return filepath.Join(d.Run, "containerd") }

// Lock is taken by the agent that runs on the data directory, or is about to.
// The error is ErrTaken if there is one already.
func (d Dirs) Lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(d.Data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrTaken
		}
		return nil, fmt.Errorf("data directory %s: %w", d.Data, err)
	}
	return func() { f.Close() }, nil
}

// ErrTaken is a data directory that an agent runs on.
var ErrTaken = errors.New("another agent runs on it: stop that with \"troupe down\", or give this one another with --data-dir")

// Taken tells whether an agent runs on the data directory, or is about to: it
// may have no process id file yet.
func (d Dirs) Taken() (bool, error) {
	unlock, err := d.Lock()
	switch {
	case errors.Is(err, ErrTaken):
		return true, nil
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	unlock()
	return false, nil
}

// WritePID writes the calling process's id and returns what removes it again.
// The process holds a lock on the file, so that one left by a process that was
// killed is told from one that is in use.
func (d Dirs) WritePID() (remove func(), err error) {
	if err := os.MkdirAll(d.Run, 0o755); err != nil {
		return nil, err
	}
	tmp := d.PIDFile() + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err == nil {
		err = os.Rename(tmp, d.PIDFile())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", d.PIDFile(), err)
	}
	return func() {
		os.Remove(d.PIDFile())
		f.Close()
	}, nil
}

// PID is the running agent's process id, 0 if none runs: a file that no process
// holds counts as none, whatever has its process id by now.
func (d Dirs) PID() (int, error) {
	f, err := os.Open(d.PIDFile())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); {
	case err == nil:
		return 0, nil
	case !errors.Is(err, unix.EWOULDBLOCK):
		return 0, fmt.Errorf("%s: %w", d.PIDFile(), err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s: not a process id: %w", d.PIDFile(), err)
	}
	if !IsAgent(pid) {
		return 0, nil
	}
	return pid, nil
}

// IsAgent says whether that process is an agent, and not a zombie.
func IsAgent(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	open, end := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	if open < 0 || end < open || end+2 >= len(stat) {
		return false
	}
	return string(stat[open+1:end]) == "trouped" && stat[end+2] != 'Z'
}

// Settings are what an agent was started with, as far as somebody else has to
// know it to stop it or to remove what it made.
type Settings struct {
	Node                string `json:"node"`
	RunDir              string `json:"runDir"`
	Containerd          string `json:"containerd"` // address of the daemon's socket
	ContainerdNamespace string `json:"containerdNamespace"`
	PrivateContainerd   bool   `json:"privateContainerd"` // the agent's own, to be stopped with it
	CgroupParent        string `json:"cgroupParent"`
	PodCIDR             string `json:"podCIDR"` // of all machines
	Network             string `json:"network"` // of the namespace that the agent runs in
}

func (d Dirs) settings() string { return filepath.Join(d.Data, "agent.json") }

// Write keeps s in the data directory.
func (d Dirs) Write(s Settings) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replace(d.settings(), append(b, '\n'))
}

// Read is what the last agent with this data directory wrote, and false if
// there was none.
func (d Dirs) Read() (Settings, bool, error) {
	var s Settings
	b, err := os.ReadFile(d.settings())
	if errors.Is(err, os.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return s, false, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, false, fmt.Errorf("%s: %w", d.settings(), err)
	}
	return s, true, nil
}

// replace writes a file so that a reader sees the old or the new one, whole.
func replace(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
