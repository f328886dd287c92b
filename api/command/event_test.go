package command_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
)

func TestALongMessageIsCutBetweenCharacters(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}
	nothing := func(api.Key) api.Object { return nil }
	for begin := range 3 {
		message := strings.Repeat("x", begin) + strings.Repeat("€", 1000)
		c := command.Event(pod, nothing, "test", "", corev1.EventTypeWarning, "Failed", message, time.Unix(0, 0))
		got := c.Object.(*corev1.Event).Message
		if !utf8.ValidString(got) || !strings.HasPrefix(message, got) || len(got) < 1022 || len(got) > 1024 {
			t.Errorf("%d bytes, valid: %t", len(got), utf8.ValidString(got))
		}
	}
}
