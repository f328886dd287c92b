package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/troupe-sh/troupe/cmd/internal/place"
)

func TestOneAgentIsNotStoppedWithTheSettingsOfAnother(t *testing.T) {
	d := place.Dirs{Data: filepath.Join(t.TempDir(), "data"), Run: filepath.Join(t.TempDir(), "run")}
	if err := sameAgent(d, place.Settings{}, false); err != nil {
		t.Errorf("no agent at all: %v", err)
	}
	if err := sameAgent(d, place.Settings{RunDir: d.Run}, true); err != nil {
		t.Errorf("its own settings: %v", err)
	}
	for _, run := range []string{"", "/run/another"} {
		if sameAgent(d, place.Settings{RunDir: run}, true) == nil {
			t.Errorf("settings with the run directory %q: no error", run)
		}
	}
}

func TestTheNetworkOfAnotherIsLeftAlone(t *testing.T) {
	here, err := place.Network()
	if err != nil {
		t.Fatal(err)
	}
	for network, want := range map[string]bool{
		here: true, "": true, "another-boot net:[1]": true, here[:len(here)-1] + strconv.Itoa(os.Getpid()) + "]": false,
	} {
		if got, err := inNetworkOf(place.Settings{Network: network}); err != nil || got != want {
			t.Errorf("network %q: %v, %v; want %v", network, got, err, want)
		}
	}
}

func TestWhatRuncKeepsOfOthersStays(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"ours/c1", "theirs/c2"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", ".", "..", "theirs/c2"} {
		if removeRuncState(root, name) == nil {
			t.Errorf("namespace %q: no error", name)
		}
	}
	if err := removeRuncState(root, "ours"); err != nil || exists(filepath.Join(root, "ours")) || !exists(filepath.Join(root, "theirs/c2")) {
		t.Errorf("ours: %v, there %v; theirs there %v", err, exists(filepath.Join(root, "ours")), exists(filepath.Join(root, "theirs/c2")))
	}
}
