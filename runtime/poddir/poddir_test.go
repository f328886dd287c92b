package poddir_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/poddir"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestGraceOutlivesTheAgent(t *testing.T) {
	data := t.TempDir()
	const uid types.UID = "0e1f"
	if _, ok, err := poddir.New(data, slog.Default()).Grace(t.Context(), uid); ok || err != nil {
		t.Fatalf("grace of a pod that has no record: %v, %v", ok, err)
	}
	if err := poddir.New(data, slog.Default()).SaveGrace(t.Context(), uid, time.Hour); err != nil {
		t.Fatal(err)
	}
	left, ok, err := poddir.New(data, slog.Default()).Grace(t.Context(), uid)
	if !ok || err != nil || left > time.Hour || left < time.Minute {
		t.Errorf("left %v, %v, %v; want nearly an hour", left, ok, err)
	}

	// A record of another boot counts for nothing.
	file := filepath.Join(data, "pods", string(uid), "grace")
	put(t, file, `{"boot":"another","end":1}`)
	if _, ok, err := poddir.New(data, slog.Default()).Grace(t.Context(), uid); ok || err != nil {
		t.Errorf("grace of an earlier boot: %v, %v", ok, err)
	}
	put(t, file, `{"boot":`)
	if _, ok, err := poddir.New(data, slog.Default()).Grace(t.Context(), uid); ok || err == nil {
		t.Errorf("a torn record: %v, %v", ok, err)
	}
}

func TestPodsAndRemove(t *testing.T) {
	data := t.TempDir()
	d := poddir.New(data, slog.Default())
	put(t, filepath.Join(poddir.LogDir(data), "default_web_u1", "c", "0.log"), "")
	put(t, filepath.Join(data, "pods", "u3", "volumes", "x"), "")
	if err := d.SaveGrace(t.Context(), "u2", 0); err != nil {
		t.Fatal(err)
	}
	if err := d.SaveGrace(t.Context(), "u3", 0); err != nil {
		t.Fatal(err)
	}
	uids, err := d.Pods(t.Context())
	if want := []types.UID{"u1", "u2", "u3"}; err != nil || !slices.Equal(uids, want) {
		t.Errorf("pods %v, %v; want %v", uids, err, want)
	}
	for range 2 { // a second time changes nothing
		for _, uid := range uids {
			if err := d.Remove(t.Context(), uid); err != nil {
				t.Error(err)
			}
		}
	}
	if uids, err = d.Pods(t.Context()); err != nil || len(uids) > 0 {
		t.Errorf("pods %v, %v; want none", uids, err)
	}
	if _, err := os.Stat(filepath.Join(data, "pods", "u2")); !os.IsNotExist(err) {
		t.Errorf("the empty directory is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, "pods", "u3", "volumes", "x")); err != nil {
		t.Errorf("what others keep was touched: %v", err)
	}
	for _, uid := range []types.UID{"", "../x"} {
		if err := d.Remove(t.Context(), uid); err == nil {
			t.Errorf("removed %q", uid)
		}
	}
}

func TestTerminationMessage(t *testing.T) {
	dir := t.TempDir()
	d := poddir.New(dir, slog.Default())
	message, log := filepath.Join(dir, "message"), filepath.Join(dir, "0.log")
	var lines strings.Builder
	for range 100 {
		lines.WriteString("2026-01-02T03:04:05.000000006Z stderr F " + strings.Repeat("x", 50) + "\n")
	}
	put(t, log, lines.String()+"2026-01-02T03:04:05.000000006Z stderr F no such file\n")
	put(t, filepath.Join(dir, "secret"), "of the machine")
	failed := container.Container{ID: "c", TerminationMessagePath: message, LogPath: log, ExitKnown: true, ExitCode: 1}
	done := failed
	done.ExitCode = 0
	const file, fallback = corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError

	if got := d.TerminationMessage(t.Context(), failed, file); got != "" {
		t.Errorf("without a file: %q", got)
	}
	if got := d.TerminationMessage(t.Context(), done, fallback); got != "" {
		t.Errorf("a container that succeeded speaks by its log: %q", got)
	}
	got := d.TerminationMessage(t.Context(), failed, fallback)
	if !strings.HasSuffix(got, "no such file\n") || len(got) != 2048 {
		t.Errorf("the end of the log: %d bytes, %q", len(got), got)
	}
	if err := os.Symlink(filepath.Join(dir, "secret"), message); err != nil {
		t.Fatal(err)
	}
	if got := d.TerminationMessage(t.Context(), failed, file); got != "" {
		t.Errorf("read through a link that the container made: %q", got)
	}
	if err := os.Remove(message); err != nil {
		t.Fatal(err)
	}
	put(t, message, strings.Repeat("y", 5000))
	if got := d.TerminationMessage(t.Context(), failed, fallback); got != strings.Repeat("y", 4096) {
		t.Errorf("the message is %d bytes, want the first 4096", len(got))
	}
}
