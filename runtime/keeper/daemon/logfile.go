package daemon

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// logFile is a container's log, with its rotated predecessors beside it:
// PATH.20060102-150405, as kubelet names them, and for more than one in a
// second PATH.20060102-150405.0001 and so on. Names sort by age.
type logFile struct {
	path     string
	maxSize  int64
	maxFiles int

	f    *os.File
	size int64
}

const rotatedFormat = "20060102-150405"

func openLog(path string, maxSize int64, maxFiles int) (*logFile, error) {
	l := &logFile{path: path, maxSize: maxSize, maxFiles: maxFiles}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	if l.f != nil {
		l.f.Close()
	}
	l.f, l.size = f, st.Size()
	return nil
}

// full says whether n more bytes belong into a new file.
func (l *logFile) full(n int) bool {
	return l.size > 0 && l.size+int64(n) > l.maxSize
}

// write appends text as a whole or not at all.
func (l *logFile) write(text []byte) error {
	if _, err := l.f.Write(text); err != nil {
		if cut := l.f.Truncate(l.size); cut != nil {
			return fmt.Errorf("%w; cutting it back: %w", err, cut)
		}
		return err
	}
	l.size += int64(len(text))
	return nil
}

func (l *logFile) cut(size int64) error {
	if err := l.f.Truncate(size); err != nil {
		return err
	}
	l.size = size
	return nil
}

// rotate puts the file aside, starts a new one and removes what is too old.
func (l *logFile) rotate(now time.Time) error {
	old, err := l.rotated()
	if err != nil {
		return err
	}
	name := l.path + "." + now.Format(rotatedFormat)
	if len(old) > 0 && name <= old[len(old)-1] {
		name = following(l.path, old[len(old)-1])
	}
	if err := os.Rename(l.path, name); err != nil {
		return err
	}
	if err := l.open(); err != nil {
		return err
	}
	old = append(old, name)
	for _, p := range old[:max(0, len(old)-(l.maxFiles-1))] {
		if err := os.Remove(p); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// rotated lists the older files, oldest first.
func (l *logFile) rotated() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(l.path))
	if err != nil {
		return nil, err
	}
	base := filepath.Base(l.path) + "."
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), base) })
	var paths []string
	for _, e := range entries { // ReadDir sorts
		paths = append(paths, filepath.Join(filepath.Dir(l.path), e.Name()))
	}
	return paths, nil
}

// following names the file that comes after last within its second, also when
// the clock went back.
func following(path, last string) string {
	second, n := strings.TrimPrefix(last, path+"."), 0
	if len(second) > len(rotatedFormat) {
		fmt.Sscanf(second[len(rotatedFormat):], ".%d", &n)
		second = second[:len(rotatedFormat)]
	}
	return fmt.Sprintf("%s.%s.%04d", path, second, n+1)
}

func (l *logFile) close() error { return l.f.Close() }
