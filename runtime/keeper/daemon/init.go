package daemon

import (
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Init is process 1 of pods whose containers share a process namespace: it
// reaps what was orphaned there and ends on SIGTERM or SIGINT, and the kernel
// ends the namespace's other processes with it.
func Init() error {
	if os.Getpid() != 1 {
		return errors.New("init runs as process 1 of a pod only")
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT)
	for sig := range signals {
		if sig != unix.SIGCHLD {
			return nil
		}
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.EINTR && pid <= 0 {
				break
			}
		}
	}
	return nil
}
