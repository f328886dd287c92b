package daemon

import (
	"log/slog"
	"testing"
	"time"
)

func TestAnAgentThatDoesNotStayWaitsLongerEachTime(t *testing.T) {
	g := newGuard(slog.New(slog.DiscardHandler))
	now := time.Unix(1e9, 0)
	for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		if got := g.pause(now); got != want*time.Second {
			t.Errorf("start %d: waits %v, want %v", i+1, got, want*time.Second)
		}
		now = now.Add(want*time.Second + stayed/2)
	}
	now = now.Add(stayed)
	if got := g.pause(now); got != 0 {
		t.Errorf("one that had stayed: waits %v", got)
	}
}
