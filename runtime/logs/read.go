// Package logs reads and removes the log files that the keeper writes: of one
// container and attempt PATH, and rotated before it PATH.*, oldest first by
// name. Nothing is asked of the keeper or the runtime: the files are all.
package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
)

// Options say which part of a log is wanted, with the meanings that
// [corev1.PodLogOptions] give them.
type Options struct {
	Tail       int64 // last lines only; negative: all
	Since      time.Time
	Timestamps bool
	Limit      int64  // bytes; 0: none
	Stream     string // stdout, stderr or, empty, both

	// Follow goes on until Ended is closed and everything was read.
	Follow bool
	Ended  <-chan struct{}
	Begun  chan<- struct{} // closed once it is settled where to begin; may be nil
}

// OptionsOf translates what a client asks for; now is when it asked.
func OptionsOf(o *corev1.PodLogOptions, now time.Time) Options {
	r := Options{Tail: -1, Timestamps: o.Timestamps, Follow: o.Follow}
	if o.TailLines != nil {
		r.Tail = *o.TailLines
	}
	if o.LimitBytes != nil {
		r.Limit = *o.LimitBytes
	}
	if o.SinceTime != nil {
		r.Since = o.SinceTime.Time
	}
	if o.SinceSeconds != nil {
		r.Since = now.Add(-time.Duration(*o.SinceSeconds) * time.Second)
	}
	if o.Stream != nil && *o.Stream != corev1.LogStreamAll {
		r.Stream = strings.ToLower(*o.Stream)
	}
	return r
}

// errLimit ends a reading that has reached Options.Limit.
var errLimit = errors.New("limit reached")

// Read writes the log at path to w. A w that has a method Flush is flushed
// whenever everything there is was written. The error is fs.ErrNotExist if
// there is no such log, ctx's own if it ended first.
func Read(ctx context.Context, path string, o Options, w io.Writer) error {
	r := &reader{path: path, options: o, w: bufio.NewWriterSize(w, 32<<10), left: math.MaxInt64, fresh: true}
	if o.Limit > 0 {
		r.left = o.Limit
	}
	r.flusher, _ = w.(interface{ Flush() })
	if o.Follow {
		watcher, err := fsnotify.NewWatcher()
		if err != nil {
			return fmt.Errorf("follow %s: %w", path, err)
		}
		defer watcher.Close()
		if err := watcher.Add(filepath.Dir(path)); err != nil {
			return fmt.Errorf("follow %s: %w", path, err)
		}
		r.watcher = watcher
	}
	err := r.run(ctx)
	if r.f != nil {
		r.f.Close()
	}
	if err == nil || errors.Is(err, errLimit) {
		err = r.flush()
	}
	return err
}

// reader goes through the files of one log.
type reader struct {
	path    string
	options Options
	watcher *fsnotify.Watcher

	f    *os.File
	st   fs.FileInfo // of f
	in   *bufio.Reader
	part []byte // an entry whose end is not written yet

	w       *bufio.Writer
	flusher interface{ Flush() }
	left    int64 // bytes that may still be written
	fresh   bool  // the next entry begins a line
}

func (r *reader) run(ctx context.Context) error {
	if err := r.begin(); err != nil {
		return err
	}
	if r.options.Begun != nil {
		close(r.options.Begun)
	}
	ended := false
	for {
		if err := r.drain(ctx); err != nil {
			return err
		}
		// At the end of this file. If there is a later one, nobody writes to
		// this any more: look at its end once more, then go on there.
		later, err := r.later()
		if err != nil {
			return err
		}
		if later != nil {
			if err := r.drain(ctx); err != nil {
				later.Close()
				return err
			}
			if err := r.use(later); err != nil {
				return err
			}
			continue
		}
		if !r.options.Follow || ended {
			return nil
		}
		if err := r.flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.options.Ended:
			ended = true
		case err := <-r.watcher.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) { // which says: look
				return fmt.Errorf("follow %s: %w", r.path, err)
			}
		case <-r.watcher.Events:
		}
	}
}

// begin opens the first file of which something is wanted, and goes to where
// that begins.
func (r *reader) begin() error {
	files, err := r.open()
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("log %s: %w", r.path, fs.ErrNotExist)
	}
	// The newest that begins early enough is where to begin.
	at, offset := 0, int64(0)
	if want := r.options.Tail; want >= 0 {
		for at = len(files) - 1; ; at-- {
			var found int64
			if offset, found, err = tail(files[at], want); err != nil {
				break
			}
			if want -= found; want <= 0 || at == 0 {
				break
			}
		}
	}
	for at < len(files)-1 && err == nil && !r.options.Since.IsZero() {
		var st fs.FileInfo
		if st, err = files[at].Stat(); err != nil || !st.ModTime().Before(r.options.Since) {
			break
		}
		at, offset = at+1, 0
	}
	for i, f := range files {
		if i != at || err != nil {
			f.Close()
		}
	}
	if err != nil {
		return err
	}
	if _, err := files[at].Seek(offset, io.SeekStart); err != nil {
		files[at].Close()
		return err
	}
	return r.use(files[at])
}

func (r *reader) use(f *os.File) error {
	if r.f != nil {
		r.f.Close()
	}
	r.part = r.part[:0]
	st, err := f.Stat()
	if err != nil {
		f.Close()
		r.f = nil
		return err
	}
	r.f, r.st = f, st
	if r.in == nil {
		r.in = bufio.NewReaderSize(nil, 64<<10)
	}
	r.in.Reset(f)
	return nil
}

// open opens all files of the log, oldest first, as they were at one moment.
func (r *reader) open() ([]*os.File, error) {
	for {
		before, err := stat(r.path)
		if err != nil {
			return nil, err
		}
		var files []*os.File
		names, err := Files(r.path)
		for _, name := range names {
			f, e := os.Open(name)
			if errors.Is(e, fs.ErrNotExist) {
				continue
			}
			if e != nil {
				err = e
				break
			}
			files = append(files, f)
		}
		after, e := stat(r.path)
		if err = errors.Join(err, e); err == nil && sameFile(before, after) {
			return files, nil
		}
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			return nil, err
		}
		// It was rotated meanwhile.
	}
}

func stat(path string) (fs.FileInfo, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return st, err
}

func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b)
}

// Files of the log at path that there are, oldest first.
func Files(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var files []string
	current := false
	for _, e := range entries { // sorted
		switch name := e.Name(); {
		case name == filepath.Base(path):
			current = true
		case strings.HasPrefix(name, filepath.Base(path)+"."):
			files = append(files, filepath.Join(filepath.Dir(path), name))
		}
	}
	if current {
		files = append(files, path)
	}
	return files, nil
}

// later opens the file that comes after the one being read; nil if that is
// the last.
func (r *reader) later() (*os.File, error) {
	st, err := stat(r.path)
	if err != nil {
		return nil, err
	}
	if st == nil || os.SameFile(st, r.st) {
		return nil, nil // or between the two steps of a rotation, or removed
	}
	files, err := r.open()
	if err != nil {
		return nil, err
	}
	// Its successor; if it was removed for its age, the oldest.
	next := 0
	for i, f := range files {
		if st, e := f.Stat(); e == nil && os.SameFile(st, r.st) {
			next = i + 1
		}
	}
	var found *os.File
	for i, f := range files {
		if i == next {
			found = f
			continue
		}
		f.Close()
	}
	return found, nil
}

// tail finds where the last n lines of f begin, and how many there are of them.
func tail(f *os.File, n int64) (offset, found int64, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, 0, err
	}
	buf := make([]byte, 32<<10)
	for pos := end; pos > 0; {
		size := min(pos, int64(len(buf)))
		pos -= size
		if _, err := f.ReadAt(buf[:size], pos); err != nil {
			return 0, 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || pos+i == end-1 {
				continue
			}
			if found++; found == n {
				return pos + i + 1, found, nil
			}
		}
	}
	if end > 0 {
		found++
	}
	return 0, found, nil
}

// drain writes every entry up to the end of the file.
func (r *reader) drain(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece, err := r.in.ReadSlice('\n')
		switch {
		case err == nil && len(r.part) == 0:
			err = r.entry(piece)
		case err == nil:
			r.part = append(r.part, piece...)
			err = r.entry(r.part)
			r.part = r.part[:0]
		case errors.Is(err, io.EOF) || errors.Is(err, bufio.ErrBufferFull):
			r.part = append(r.part, piece...)
			if errors.Is(err, io.EOF) {
				return nil
			}
			err = nil
		}
		if err != nil {
			return err
		}
	}
}

// entry writes one if it is wanted: TIME STREAM TAG TEXT. Others than the
// keeper's are passed over.
func (r *reader) entry(line []byte) error {
	stamp, rest, _ := bytes.Cut(line, []byte{' '})
	stream, rest, _ := bytes.Cut(rest, []byte{' '})
	tag, text, ok := bytes.Cut(rest, []byte{' '})
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if !ok || err != nil {
		return nil
	}
	if at.Before(r.options.Since) || r.options.Stream != "" && r.options.Stream != string(stream) {
		return nil
	}
	if r.fresh && r.options.Timestamps {
		if err := r.write(append(at.AppendFormat(nil, "2006-01-02T15:04:05.000000000Z07:00"), ' ')); err != nil {
			return err
		}
	}
	r.fresh = true
	if len(tag) > 0 && tag[0] == 'P' {
		text = bytes.TrimSuffix(text, []byte{'\n'})
		r.fresh = false
	}
	return r.write(text)
}

func (r *reader) write(b []byte) error {
	if int64(len(b)) > r.left {
		b = b[:r.left]
	}
	r.left -= int64(len(b))
	if _, err := r.w.Write(b); err != nil {
		return err
	}
	if r.left == 0 {
		return errLimit
	}
	return nil
}

func (r *reader) flush() error {
	if err := r.w.Flush(); err != nil {
		return err
	}
	if r.flusher != nil {
		r.flusher.Flush()
	}
	return nil
}

// Remove removes one attempt's log with its rotated parts. A log that is not
// there is no error.
func Remove(path string) error {
	files, err := Files(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range slices.Backward(files) {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// RemovePod removes all logs of a pod. dir is where the pods' directories are,
// NAMESPACE_NAME_UID.
func RemovePod(dir, uid string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		if UID(e.Name()) == uid && uid != "" {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Pods lists the UIDs of the pods that have logs in dir.
func Pods(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var uids []string
	for _, e := range entries {
		if uid := UID(e.Name()); uid != "" {
			uids = append(uids, uid)
		}
	}
	return uids, nil
}

// UID of the pod whose logs are in a directory of that name; empty if it is
// not one.
func UID(name string) string {
	parts := strings.Split(name, "_")
	if len(parts) != 3 {
		return ""
	}
	return parts[2]
}
