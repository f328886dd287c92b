package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

const kindsHere = ` ("troupe api-resources" lists those it has)`

// absent is what kubectl says about kinds that the agent has not.
var absent = []struct {
	said *regexp.Regexp
	by   string
}{
	{
		regexp.MustCompile(`resource mapping not found for name: "(.*?)" namespace: ".*?" from "(.*?)": no matches for kind "(.*?)" in version "(.*?)"\nensure CRDs are installed first`),
		`$3 "$1" in $2: this agent has no kind $3 in $4` + kindsHere,
	},
	{regexp.MustCompile(`no matches for kind "(.*?)" in version "(.*?)"`), `this agent has no kind $1 in $2` + kindsHere},
	{regexp.MustCompile(`the server doesn't have a resource type "(.*?)"`), `the server doesn't have a resource type "$1"` + kindsHere},
	{regexp.MustCompile(`failed to create autoscaling/v2 HPA and .*`), `this agent has no kind HorizontalPodAutoscaler in autoscaling/v2` + kindsHere},
}

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
	for _, a := range absent {
		if text := a.said.ReplaceAllString(msg, a.by); text != msg {
			return text
		}
	}
	return msg
}
