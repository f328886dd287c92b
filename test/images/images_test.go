package main

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

func TestTheTableIsSound(t *testing.T) {
	var built, tags []string
	for _, i := range images {
		if i.base != "" && !slices.Contains(built, i.base) {
			t.Errorf("%s stands before its base %s", i.name, i.base)
		}
		built = append(built, i.name)
		for _, tag := range i.tags {
			if _, err := name.NewTag(tag); err != nil {
				t.Errorf("%s: %v", i.name, err)
			}
			if slices.Contains(tags, tag) {
				t.Errorf("%s: %s is another image too", i.name, tag)
			}
			tags = append(tags, tag)
		}
	}
}

func TestTheSameTreeIsTheSameLayer(t *testing.T) {
	tr := tree{
		"b/c":    {mode: 0o644, body: []byte("text")},
		"a":      {mode: 0o777, link: "b/c"},
		"b":      {mode: 0o700, dir: true},
		"x/y/z":  {mode: 0o755, body: []byte("#!")},
		"usr/lo": {mode: 0o755, dir: true},
	}
	first, err := tr.tar()
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		again, err := tr.tar()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, again) {
			t.Fatal("two archives of one tree differ")
		}
	}
}

func TestPathsMoveIntoUsr(t *testing.T) {
	for in, want := range map[string]string{
		"./bin/bash":                  "usr/bin/bash",
		"/lib/x86_64-linux-gnu/l.so":  "usr/lib/x86_64-linux-gnu/l.so",
		"./lib64/ld-linux.so.2":       "usr/lib64/ld-linux.so.2",
		"./usr/bin/env":               "usr/bin/env",
		"./bin/":                      "",
		"./":                          "",
		"./binary":                    "binary",
		"/lib/../etc/alternatives/vi": "etc/alternatives/vi",
	} {
		if got := inUsr(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
