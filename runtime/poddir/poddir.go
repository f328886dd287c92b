// Package poddir keeps what a machine's actors know of its pods in files: how
// much of a pod's grace period is left, also for an agent that was restarted,
// and what its containers left behind, messages and logs.
package poddir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/logs"
)

// Limits of Kubernetes.
const (
	messageMax = 4096
	tailLines  = 80
	tailMax    = 2048
)

// Dir is where they are: DATA/pods/UID/grace and DATA/logs/pods.
type Dir struct {
	pods, logs string
	log        *slog.Logger
}

// New returns the files below the data directory.
func New(dataDir string, log *slog.Logger) *Dir {
	return &Dir{pods: filepath.Join(dataDir, "pods"), logs: LogDir(dataDir), log: log}
}

// LogDir is where pods log to: a pod.Machine's LogDir.
func LogDir(dataDir string) string { return filepath.Join(dataDir, "logs", "pods") }

// grace is what the file holds. The clock is the machine's monotonic one, which
// means nothing after a reboot.
type grace struct {
	Boot string        `json:"boot"`
	End  time.Duration `json:"end"`
}

func (d *Dir) graceFile(uid types.UID) string { return filepath.Join(d.pods, string(uid), "grace") }

// SaveGrace records that a pod's containers have had their signal and are
// killed after left.
func (d *Dir) SaveGrace(_ context.Context, uid types.UID, left time.Duration) error {
	boot, now, err := clock()
	if err != nil {
		return err
	}
	b, err := json.Marshal(grace{Boot: boot, End: now + left})
	if err != nil {
		return err
	}
	file := d.graceFile(uid)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b, 0o640); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// Grace is what is left of it now; false if there is no record of this boot.
func (d *Dir) Grace(_ context.Context, uid types.UID) (time.Duration, bool, error) {
	b, err := os.ReadFile(d.graceFile(uid))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	var g grace
	if err := json.Unmarshal(b, &g); err != nil {
		return 0, false, fmt.Errorf("read %s: %w", d.graceFile(uid), err)
	}
	boot, now, err := clock()
	if err != nil || boot != g.Boot {
		return 0, false, err
	}
	return max(g.End-now, 0), true, nil
}

// clock is this boot's name, and the time since it began.
func clock() (string, time.Duration, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", 0, err
	}
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return "", 0, fmt.Errorf("read the time since boot: %w", err)
	}
	return strings.TrimSpace(string(boot)), time.Duration(t.Nano()), nil
}

// Pods lists whose records or logs are there.
func (d *Dir) Pods(context.Context) ([]types.UID, error) {
	logging, err := logs.Pods(d.logs)
	if err != nil {
		return nil, err
	}
	all := map[types.UID]bool{}
	for _, uid := range logging {
		all[types.UID(uid)] = true
	}
	records, err := filepath.Glob(filepath.Join(d.pods, "*", "grace*"))
	if err != nil {
		return nil, err
	}
	for _, file := range records {
		all[types.UID(filepath.Base(filepath.Dir(file)))] = true
	}
	var uids []types.UID
	for uid := range all {
		uids = append(uids, uid)
	}
	slices.Sort(uids)
	return uids, nil
}

// Remove removes a pod's record and logs, and its directory if nothing else is in it.
func (d *Dir) Remove(_ context.Context, uid types.UID) error {
	if uid == "" || strings.ContainsAny(string(uid), "/") {
		return fmt.Errorf("remove the files of pod %q: that is no UID", uid)
	}
	file := d.graceFile(uid)
	errs := []error{logs.RemovePod(d.logs, string(uid))}
	for _, f := range []string{file, file + ".new"} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := unix.Rmdir(filepath.Dir(file)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, fmt.Errorf("remove %s: %w", filepath.Dir(file), err))
	}
	return errors.Join(errs...)
}

// RemoveLog removes an attempt's log with its rotated parts.
func (d *Dir) RemoveLog(_ context.Context, path string) error { return logs.Remove(path) }

// TerminationMessage is what a container that ended had to say: its message
// file, or by its policy the end of its log if it failed without one.
func (d *Dir) TerminationMessage(ctx context.Context, c container.Container, policy corev1.TerminationMessagePolicy) string {
	if c.TerminationMessagePath != "" {
		b, err := head(c.TerminationMessagePath)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("read a termination message", slog.String("container", c.ID), slog.Any("error", err))
		}
		if len(b) > 0 {
			return string(bytes.ToValidUTF8(b, []byte("\uFFFD")))
		}
	}
	if policy != corev1.TerminationMessageFallbackToLogsOnError || c.ExitKnown && c.ExitCode == 0 && !c.OOMKilled || c.LogPath == "" {
		return ""
	}
	var b bytes.Buffer
	if err := logs.Read(ctx, c.LogPath, logs.Options{Tail: tailLines}, &b); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("read the end of a log", slog.String("container", c.ID), slog.Any("error", err))
		}
		return ""
	}
	tail := b.Bytes()
	return string(bytes.ToValidUTF8(tail[max(len(tail)-tailMax, 0):], []byte("\uFFFD")))
}

// head reads the beginning of a file that a container writes: never through
// something that it is not, and never more than the limit.
func head(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, messageMax))
}
