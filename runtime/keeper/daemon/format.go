package daemon

import (
	"bytes"
	"time"
)

// maxLine is the longest entry of a log; longer lines become several, all but
// the last marked as partial.
const maxLine = 16 << 10

// textSize bounds what is written at once. Many empty lines make much text of
// few bytes.
const textSize = 256 << 10

// stampFormat has a fixed width: a write that is done again has the same length.
const stampFormat = "2006-01-02T15:04:05.000000000Z"

// manner of writing a stream.
type manner uint8

const (
	inLines manner = iota // whole lines; what has no newline yet stays
	atEnd                 // what is left is the last that comes
	live                  // somebody looks on: everything, as it comes
)

// appendEntries appends data's lines to dst as log entries of stream and
// returns how much of data they hold. What would make dst longer than textSize
// stays.
func appendEntries(dst []byte, now time.Time, stream string, data []byte, m manner) ([]byte, int) {
	stamp := now.UTC().AppendFormat(make([]byte, 0, len(stampFormat)), stampFormat)
	entry := func(tag byte, line []byte) {
		dst = append(dst, stamp...)
		dst = append(dst, ' ')
		dst = append(dst, stream...)
		dst = append(dst, ' ', tag, ' ')
		dst = append(dst, line...)
		dst = append(dst, '\n')
	}
	used := 0
	for used < len(data) && len(dst) < textSize {
		rest := data[used:]
		i := bytes.IndexByte(rest[:min(len(rest), maxLine+1)], '\n')
		switch {
		case i >= 0:
			line := rest[:i]
			if m != live && i > 0 && line[i-1] == '\r' { // as containerd does; terminals end lines so
				line = line[:i-1]
			}
			entry('F', line)
			used += i + 1
		case len(rest) > maxLine:
			entry('P', rest[:maxLine])
			used += maxLine
		case m != inLines:
			entry('P', rest)
			used = len(data)
		default:
			return dst, used
		}
	}
	return dst, used
}
