package suite

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/troupe-sh/troupe/runtime/cgroup"
)

// isolated tells the second process what it is: its value is the control group
// under which it may make its own.
const isolated = "TROUPE_TEST_CGROUP"

// CgroupParent is a control group of this test process's own, removed when it ends.
func CgroupParent() string { return os.Getenv(isolated) }

// Isolate runs the tests of a package in network, mount and process namespaces
// of their own, so that nothing of theirs outlives them, however they end:
//
//	func TestMain(m *testing.M) { os.Exit(suite.Isolate(m)) }
func Isolate(m *testing.M) int {
	if CgroupParent() != "" {
		if err := settle(); err != nil {
			fmt.Fprintln(os.Stderr, "set up the namespaces of the tests:", err)
			return 1
		}
		return m.Run()
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make namespaces and control groups: run them as root")
		return 1
	}
	parent := fmt.Sprintf("/troupe-test-%d", os.Getpid())
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), isolated+"="+parent)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := cmd.Run()
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = max(1, exit.ExitCode())
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own:", err)
		code = 1
	}
	if err := cgroup.Remove(parent); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(1, code)
	}
	return code
}

// settle makes the namespaces usable: mounts stay inside, /proc shows the
// processes that are here, loopback is up.
func settle() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// runc and shims keep their state at this place, whoever runs them.
	if err := os.MkdirAll("/run/containerd", 0o711); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/run/containerd", "tmpfs", 0, "mode=711"); err != nil {
		return fmt.Errorf("mount /run/containerd: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
