package daemon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/troupe-sh/troupe/runtime/keeper"
)

// Whatever a client says is answered line by line, or its connection ends.
func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"op":"ping"}` + "\n" + `{"op":"drain","containerID":"x"}` + "\n{\n\n"))
	f.Add([]byte(`{"op":"follow","log":{"containerID":"../x","path":"relative","stdout":"/x"}}` + "\n"))
	f.Add([]byte(`{"op":"stop"}` + "\n" + `{"op":"list"}` + "\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		for line := range bytes.Lines(said) {
			var q keeper.Request
			if json.Unmarshal(line, &q) == nil && q.Log != nil && q.Log.Check() == nil {
				return // it would write wherever it is told to
			}
		}
		s := &server{dir: t.TempDir(), log: slog.New(slog.DiscardHandler), turns: newTurns(1), stop: func() {}, containers: map[string]*container{}}
		client, served := net.Pipe()
		_ = client.SetDeadline(time.Now().Add(10 * time.Second))
		ended := make(chan struct{})
		go func() {
			s.serve(t.Context(), served)
			close(ended)
		}()
		go func() {
			_, _ = client.Write(said)
			_, _ = io.WriteString(client, "\n"+`{"op":"stop"}`+"\n") // unless it has gone
		}()
		for answers := bufio.NewScanner(client); answers.Scan(); {
			var a keeper.Response
			if err := json.Unmarshal(answers.Bytes(), &a); err != nil || a.Version != keeper.Version {
				t.Errorf("answered %q: %v", answers.Bytes(), err)
			}
		}
		_ = client.Close()
		<-ended
	})
}
