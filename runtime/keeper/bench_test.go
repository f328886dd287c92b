package keeper_test

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/troupe-sh/troupe/runtime/keeper"
)

// rss is what the keeper occupies, in MB.
func rss(b *testing.B, dir string) float64 {
	pid, err := keeperPID(dir)
	if err != nil {
		b.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kb) / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// BenchmarkFlood is one container that writes as fast as it can, in lines of
// 100 bytes: 1 GB with -benchtime 16384x.
func BenchmarkFlood(b *testing.B) {
	dir := runDir(b)
	c := start(b, config(dir, quiet()))
	l := logOf(dir, "c0")
	l.MaxSize, l.MaxFiles = keeper.DefaultMaxSize, keeper.DefaultMaxFiles
	if err := c.Follow(b.Context(), l); err != nil {
		b.Fatal(err)
	}
	s := openShim(b, l.Stdout)
	piece := bytes.Repeat([]byte(strings.Repeat("z", 99)+"\n"), 655)
	b.SetBytes(int64(len(piece)))
	b.ResetTimer()
	for range b.N {
		if _, err := s.w.Write(piece); err != nil {
			b.Fatal(err)
		}
	}
	s.close()
	if err := c.Drain(b.Context(), "c0"); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(rss(b, dir), "RSS-MB")
}

// BenchmarkLine is one short line after the other, each waited for.
func BenchmarkLine(b *testing.B) {
	dir := runDir(b)
	c := start(b, config(dir, quiet()))
	l := logOf(dir, "c0")
	if err := c.Follow(b.Context(), l); err != nil {
		b.Fatal(err)
	}
	s := openShim(b, l.Stdout)
	b.ResetTimer()
	for range b.N {
		if _, err := s.w.WriteString("GET / HTTP/1.1 200 some more words of a line\n"); err != nil {
			b.Fatal(err)
		}
	}
	s.close()
	if err := c.Drain(b.Context(), "c0"); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkHundredContainers is what following 100 containers costs in memory.
func BenchmarkHundredContainers(b *testing.B) {
	for range b.N {
		dir := runDir(b)
		c := start(b, config(dir, quiet()))
		for i := range 100 {
			id := "c" + strconv.Itoa(i)
			if err := c.Follow(b.Context(), logOf(dir, id)); err != nil {
				b.Fatal(err)
			}
			for _, path := range logOf(dir, id).FIFOs() {
				s := openShim(b, path)
				b.Cleanup(s.close)
				if _, err := s.w.Write(bytes.Repeat([]byte("a line\n"), 1000)); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(rss(b, dir), "RSS-MB")
	}
}
