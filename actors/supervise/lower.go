package supervise

import (
	"context"
	"log/slog"
)

// lower is a handler that takes information as debugging.
type lower struct{ slog.Handler }

func lowered(l slog.Level) slog.Level {
	if l == slog.LevelInfo {
		return slog.LevelDebug
	}
	return l
}

func (h lower) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, lowered(l))
}

func (h lower) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lowered(r.Level)
	return h.Handler.Handle(ctx, r)
}

func (h lower) WithAttrs(a []slog.Attr) slog.Handler { return lower{h.Handler.WithAttrs(a)} }

func (h lower) WithGroup(name string) slog.Handler { return lower{h.Handler.WithGroup(name)} }
