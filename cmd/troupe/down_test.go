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
