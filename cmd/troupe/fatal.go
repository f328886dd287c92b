package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

// unknownKind is what kubectl says about an object of a kind that the agent
// has not.
var unknownKind = regexp.MustCompile(`resource mapping not found for name: "(.*?)" namespace: ".*?" from "(.*?)": no matches for kind "(.*?)" in version "(.*?)"\nensure CRDs are installed first`)

// fatal ends one of kubectl's commands that failed: its message in our words
// where kubectl's lead nowhere here, then the exit code.
func fatal(out io.Writer, exit func(int)) func(string, int) {
	return func(msg string, code int) {
		if msg = plain(msg); msg != "" {
			fmt.Fprintln(out, strings.TrimSuffix(msg, "\n"))
		}
		exit(code)
	}
}

func plain(msg string) string {
	if i := strings.Index(msg, "no agent answers at "); i >= 0 {
		return "error: " + msg[i:]
	}
	return unknownKind.ReplaceAllString(msg, `$3 "$1" in $2: this agent has no kind $3 in $4 ("troupe api-resources" lists those it has)`)
}
