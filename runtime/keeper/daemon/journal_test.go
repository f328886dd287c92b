package daemon

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what outlives a keeper: its files.
type machine struct{ journal, log []byte }

// scene is a stream at work, stopped after each step to look whether a keeper
// that finds the files like this loses or doubles anything.
type scene struct {
	t    *testing.T
	dir  string
	j    *journal
	log  *logFile
	sent []byte // taken out of the FIFO so far
	n    int
}

func (s *scene) files() machine {
	s.t.Helper()
	j, err := os.ReadFile(s.j.f.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := os.ReadFile(s.log.path)
	if err != nil {
		s.t.Fatal(err)
	}
	return machine{j, l}
}

// crash looks at m as the next keeper would, lets it finish and compares.
func (s *scene) crash(where string, m machine) {
	s.t.Helper()
	s.n++
	dir := filepath.Join(s.dir, fmt.Sprint(s.n))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	jpath, lpath := filepath.Join(dir, "j"), filepath.Join(dir, "log")
	for path, b := range map[string][]byte{jpath: m.journal, lpath: m.log} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	log, err := openLog(lpath, 1<<30, 5)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.close()
	j, err := openJournal(jpath, log.size, log.cut)
	if err != nil {
		s.t.Fatal(err)
	}
	defer j.close()
	for j.pending() > 0 {
		text, used := next(s.t, j, true)
		if err := j.intend(log.size, int64(len(text)), used); err != nil {
			s.t.Fatal(err)
		}
		if err := log.write(text); err != nil {
			s.t.Fatal(err)
		}
		j.wrote()
	}
	b, err := os.ReadFile(lpath)
	if err != nil {
		s.t.Fatal(err)
	}
	var got []byte
	for line := range bytes.Lines(b) {
		parts := bytes.SplitN(line, []byte(" "), 4)
		if len(parts) != 4 {
			s.t.Fatalf("%s: torn entry %q", where, line)
		}
		if string(parts[2]) == "P" {
			parts[3] = bytes.TrimSuffix(parts[3], []byte("\n"))
		}
		got = append(got, parts[3]...)
	}
	if !bytes.Equal(got, s.sent) {
		s.t.Errorf("%s: %d bytes in the log, %d were sent", where, len(got), len(s.sent))
	}
}

func next(t *testing.T, j *journal, final bool) ([]byte, int64) {
	t.Helper()
	data, err := j.read(make([]byte, fillSize+2*maxLine))
	if err != nil {
		t.Fatal(err)
	}
	m := inLines
	if final {
		m = atEnd
	}
	text, used := appendEntries(nil, time.Now(), "stdout", data, m)
	return text, int64(used)
}

func TestCrashBetweenAnyTwoSteps(t *testing.T) {
	dir := t.TempDir()
	var fifo [2]int
	if err := unix.Pipe2(fifo[:], unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fifo[0])
	defer unix.Close(fifo[1])
	log, err := openLog(filepath.Join(dir, "log"), 1<<30, 5)
	if err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(filepath.Join(dir, "j"), 0, log.cut)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, dir: dir, j: j, log: log}
	for round := range 12 {
		var send []byte
		for i := range 500 {
			send = fmt.Appendf(send, "round %d line %d %s\n", round, i, strings.Repeat("x", i%150))
		}
		send = append(send, "some words of the next"...)
		if n, err := unix.Write(fifo[1], send); err != nil || n != len(send) {
			t.Fatal(n, err)
		}
		if n, err := j.fill(fifo[0]); err != nil || int(n) != len(send) {
			t.Fatal(n, err)
		}
		s.sent = append(s.sent, send...)
		s.crash("after the splice", s.files())

		text, used := next(t, j, false)
		if err := j.intend(log.size, int64(len(text)), used); err != nil {
			t.Fatal(err)
		}
		before := s.files()
		s.crash("before the write", before)
		for _, n := range []int{1, 10, len(text) / 2, len(text) - 1} {
			torn := machine{before.journal, append(bytes.Clone(before.log), text[:n]...)}
			s.crash(fmt.Sprintf("after %d bytes of the write", n), torn)
		}
		if err := log.write(text); err != nil {
			t.Fatal(err)
		}
		s.crash("after the write", s.files())
		j.wrote()
		if round%3 == 0 {
			if err := j.settle(); err != nil {
				t.Fatal(err)
			}
			s.crash("settled", s.files())
		}
		if round%4 == 3 {
			s.compact()
		}
	}
}

// compact stops inside a compaction too, by doing its steps on a copy.
func (s *scene) compact() {
	s.t.Helper()
	m := s.files()
	rest := m.journal[dataAt+s.j.head.pos:]
	copy(m.journal[dataAt:], rest)
	s.crash("rest copied to the front", m)

	path := filepath.Join(s.dir, "half")
	if err := os.WriteFile(path, m.journal, 0o600); err != nil {
		s.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	half := &journal{f: f}
	defer half.close()
	if err := half.put(header{cut: int64(len(rest)) + 1}); err != nil {
		s.t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.crash("cut announced", machine{b, m.log})
	s.crash("cut", machine{b[:dataAt+len(rest)], m.log})

	if err := s.j.compact(1); err != nil {
		s.t.Fatal(err)
	}
	if s.j.end != int64(len(rest)) || s.j.head.pos != 0 {
		s.t.Fatalf("not compacted: %+v, end %d", s.j.head, s.j.end)
	}
	s.crash("compacted", s.files())
}

func TestLogCutByOthersStaysCut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "j")
	j, err := openJournal(path, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.f.WriteAt([]byte("abc\ndef\n"), dataAt); err != nil {
		t.Fatal(err)
	}
	j.end = 8
	if err := j.intend(1000, 100, 4); err != nil {
		t.Fatal(err)
	}
	j.close()
	j, err = openJournal(path, 0, func(int64) error { t.Error("log cut"); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if got, err := j.read(make([]byte, 100)); err != nil || string(got) != "def\n" {
		t.Errorf("left: %q, %v", got, err)
	}
}

func TestEntries(t *testing.T) {
	now := time.Date(2026, 7, 26, 10, 11, 12, 13000, time.FixedZone("", 7200))
	const at = "2026-07-26T08:11:12.000013000Z stdout "
	long := strings.Repeat("l", maxLine)
	for name, c := range map[string]struct {
		data   string
		manner manner
		want   string
		left   string
	}{
		"lines":                        {data: "a\nb c\n\n", want: at + "F a\n" + at + "F b c\n" + at + "F \n"},
		"an unfinished line waits":     {data: "a\nb", want: at + "F a\n", left: "b"},
		"an unfinished line ends":      {data: "a\nb", manner: atEnd, want: at + "F a\n" + at + "P b\n"},
		"a terminal's line":            {data: "a\r\n\r\n", want: at + "F a\n" + at + "F \n"},
		"the longest line":             {data: long + "\n", want: at + "F " + long + "\n"},
		"a longer line":                {data: long + "rest\n", want: at + "P " + long + "\n" + at + "F rest\n"},
		"a longer line unfinished":     {data: long + "rest", want: at + "P " + long + "\n", left: "rest"},
		"as long as one can be, waits": {data: long, left: long},
		"nothing":                      {manner: atEnd},
		"somebody looks on":            {data: "a\r\nb\r", manner: live, want: at + "F a\r\n" + at + "P b\r\n"},
	} {
		got, used := appendEntries(nil, now, "stdout", []byte(c.data), c.manner)
		if string(got) != c.want || c.data[used:] != c.left {
			t.Errorf("%s: %.200q left %.50q", name, got, c.data[used:])
		}
	}
}

func FuzzEntries(f *testing.F) {
	f.Add([]byte("a\nb\r\n"), uint16(3))
	f.Fuzz(func(t *testing.T, data []byte, piece uint16) {
		// However it is cut in pieces, what the log holds is what came, but for \r before \n.
		var log, rest []byte
		for off := 0; off < len(data); {
			n := min(len(data)-off, int(piece)+1)
			rest = append(rest, data[off:off+n]...)
			off += n
			for {
				var used int
				m := inLines
				if off == len(data) {
					m = atEnd
				}
				log, used = appendEntries(log[:len(log):len(log)], time.Now(), "stdout", rest, m)
				rest = rest[used:]
				if used == 0 || len(log) >= textSize {
					break
				}
			}
			if len(log) >= textSize {
				return
			}
		}
		var got []byte
		for line := range bytes.Lines(log) {
			parts := bytes.SplitN(line, []byte(" "), 4)
			if string(parts[2]) == "P" {
				parts[3] = parts[3][:len(parts[3])-1]
			}
			got = append(got, parts[3]...)
		}
		want := bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
		if len(data) < maxLine && !bytes.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestNamesSortByAge(t *testing.T) {
	dir := t.TempDir()
	l, err := openLog(filepath.Join(dir, "0.log"), 10, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	at := time.Date(2026, 7, 26, 10, 0, 0, 0, time.UTC)
	// The same second, the next, and a clock that goes back.
	for i, d := range []time.Duration{0, 0, 0, time.Second, time.Second, -time.Hour, 2 * time.Second} {
		if err := l.write(fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
		if err := l.rotate(at.Add(d)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := l.rotated()
	if err != nil {
		t.Fatal(err)
	}
	var order string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		order += string(b)
	}
	if order != "0123456" {
		t.Errorf("files %v hold %s", files, order)
	}
	if _, err := os.Stat(l.path + ".20260726-100000"); err != nil {
		t.Error(err)
	}
}
