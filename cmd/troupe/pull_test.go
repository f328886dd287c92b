package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/troupe-sh/troupe/messages"
)

func TestAPullOnATerminalAndElsewhere(t *testing.T) {
	steps := []*messages.PullStep{
		{},
		{Layers: 2, Bytes: 30_000_000},
		{Layers: 2, LayersHere: 1, Bytes: 30_000_000, BytesHere: 10_000_000},
		{Layers: 2, LayersHere: 1, Bytes: 30_000_000, BytesHere: 20_000_000},
		{Layers: 2, LayersHere: 2, Bytes: 30_000_000, BytesHere: 30_000_000},
	}
	for _, c := range []struct {
		terminal bool
		want     string
	}{
		{false, "pulling web:1\nweb:1: 1 of 2 layers, 10M of 30M\nweb:1: 2 of 2 layers, 30M of 30M\n"},
		{true, "\r\x1b[Kweb:1: 0 of 2 layers, 0 of 30M\r\x1b[Kweb:1: 1 of 2 layers, 10M of 30M\r\x1b[Kweb:1: 1 of 2 layers, 20M of 30M" +
			"\r\x1b[Kweb:1: 2 of 2 layers, 30M of 30M\r\x1b[K"},
	} {
		var out strings.Builder
		d := &pullDisplay{out: &out, terminal: c.terminal}
		d.begin("web:1")
		for _, s := range append(steps, steps[len(steps)-1]) {
			d.step(s)
		}
		d.end()
		if out.String() != c.want {
			t.Errorf("terminal %t:\n got %q\nwant %q", c.terminal, out.String(), c.want)
		}
	}
}

func TestAPullUsesTheLoginOfDocker(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	config := `{"auths": {"registry.example.com:5000": {"auth": "YWxpY2U6YTpi"}, "token.example.com": {"identitytoken": "t"}}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string][2]string{
		"registry.example.com:5000/web:1": {"alice", "a:b"},
		"token.example.com/web:1":         {"", "t"},
		"other.example.com/web:1":         {},
		"not a name":                      {},
	} {
		user, password, err := login(image)
		if err != nil || user != want[0] || password != want[1] {
			t.Errorf("%s: %q, %q, %v", image, user, password, err)
		}
	}
}
