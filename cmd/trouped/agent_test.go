package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/troupe-sh/troupe/cmd/internal/config"
)

func TestAJournalWithoutItsKeyIsNotOpened(t *testing.T) {
	dir := t.TempDir()
	open := func() error {
		a := &agent{options: &options{Config: config.Config{DataDir: dir}}, log: slog.New(slog.DiscardHandler)}
		if err := a.openJournal(); err != nil {
			return err
		}
		return a.journal.Close()
	}
	for range 2 { // the first makes key and journal
		if err := open(); err != nil {
			t.Fatal(err)
		}
	}
	key := filepath.Join(dir, "seal.key")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := open(); err == nil || !strings.Contains(err.Error(), key+" is missing") {
		t.Errorf("without its key: %v", err)
	}
	if _, err := os.Stat(key); err == nil {
		t.Error("another key was made")
	}
}
