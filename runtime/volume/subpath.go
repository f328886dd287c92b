package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// bind makes what sub leads to inside of root appear at the path at. A
// container can change its volume at any time, also to symbolic links that
// lead out of it; so sub is resolved by the kernel, never beyond root, and
// what was found is bound by its descriptor.
func bind(root, sub, at string) error {
	fd, err := openBeneath(root, sub)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return bindTo(fd, at)
}

// bindFile is bind for a volume of files, in which nothing may be made: a
// directory would stand in the way of the file that comes later. What is not
// there is an empty directory.
func bindFile(root, sub, at string) error {
	base, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(base)
	fd, err := open(base, sub)
	if errors.Is(err, unix.ENOENT) {
		if err := remove(at); err != nil {
			return err
		}
		return os.MkdirAll(at, 0o755)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", sub, err)
	}
	defer unix.Close(fd)
	return bindTo(fd, at)
}

// bindTo makes what fd is appear at the path at.
func bindTo(fd int, at string) error {
	var want, have unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return err
	}
	if err := unix.Lstat(at, &have); err == nil {
		if have.Dev == want.Dev && have.Ino == want.Ino {
			return nil // bound already
		}
		if err := remove(at); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o750); err != nil {
		return err
	}
	var err error
	if want.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(at, 0o750)
	} else {
		err = os.WriteFile(at, nil, 0o640)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind to %s: %w", at, err)
	}
	// What is unmounted below it later must not be unmounted where it came from.
	if err := unix.Mount("", at, "", unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make %s a slave mount: %w", at, err)
	}
	return nil
}

// openBeneath opens sub inside of root and makes the directories that are not
// there, with root's rights.
func openBeneath(root, sub string) (int, error) {
	parent, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", root, err)
	}
	base := parent
	defer unix.Close(base)
	var st unix.Stat_t
	if err := unix.Fstat(base, &st); err != nil {
		return -1, err
	}
	parts := strings.Split(sub, "/")
	for i, part := range parts {
		path := strings.Join(parts[:i+1], "/")
		fd, err := open(base, path)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(parent, part, 0o700); err == nil || errors.Is(err, unix.EEXIST) {
				made := err == nil
				if fd, err = open(base, path); err == nil && made {
					err = unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), st.Mode&0o7777)
				}
			}
		}
		if parent != base {
			unix.Close(parent)
		}
		if err != nil {
			if fd >= 0 {
				unix.Close(fd)
			}
			if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ELOOP) {
				return -1, fmt.Errorf("%s leads out of the volume by a symbolic link: %w", path, err)
			}
			return -1, fmt.Errorf("open %s: %w", path, err)
		}
		parent = fd
	}
	return parent, nil
}

func open(base int, path string) (int, error) {
	for {
		fd, err := unix.Openat2(base, path, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
		})
		// EAGAIN: something was renamed meanwhile, and the kernel cannot be sure.
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
