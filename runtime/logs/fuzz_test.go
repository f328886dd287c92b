package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func FuzzRead(f *testing.F) {
	const at = "2026-03-01T12:00:00.000000001Z "
	f.Add([]byte(at+"stdout F one\n"+at+"stderr P tw"), []byte(at+"stdout P tw\n"+at+"stdout F o\n"), int64(1), int64(3))
	f.Add([]byte("no entry\n\n"+at+"\n"), []byte(at+"stdout F"), int64(2), int64(0))
	f.Fuzz(func(t *testing.T, older, newer []byte, tail, limit int64) {
		path := filepath.Join(t.TempDir(), "0.log")
		for name, data := range map[string][]byte{path + ".20260301-120000": older, path: newer} {
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		read := func(o Options) []byte {
			var out bytes.Buffer
			if err := Read(t.Context(), path, o, &out); err != nil {
				t.Fatalf("%+v: %v", o, err)
			}
			return out.Bytes()
		}
		all := read(Options{Tail: -1})
		if last := read(Options{Tail: max(tail, 0)}); !bytes.HasSuffix(all, last) {
			t.Errorf("the last %d lines %q are not the end of %q", tail, last, all)
		}
		if limit = max(limit, 1); int64(len(all)) > limit {
			if first := read(Options{Tail: -1, Limit: limit}); !bytes.Equal(first, all[:limit]) {
				t.Errorf("the first %d bytes are %q, of %q", limit, first, all)
			}
		}
		if n := len(read(Options{Tail: -1, Since: time.Unix(1<<40, 0), Timestamps: true})); n > len(older)+len(newer) {
			t.Errorf("%d bytes of the far future", n)
		}
	})
}
