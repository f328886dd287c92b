// Package stream serves what a client sees and says of a running container, on
// the machine that runs it: logs, exec and attach, over what kubectl speaks
// (chunked HTTP, WebSocket, SPDY).
package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/logs"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Config of Streams.
type Config struct {
	Runtime container.Runtime
	LogDir  string // DATA/logs/pods
	// Drain returns when all that a container printed until its end is in its log.
	Drain func(ctx context.Context, containerID string) error
	// Attach makes what a container prints be in its log at once, byte by byte,
	// until ctx ends.
	Attach func(ctx context.Context, containerID string) error
	Log    *slog.Logger
}

// Streams of the containers of one machine.
type Streams struct {
	c           Config
	unsubscribe func()

	mu   sync.Mutex
	ears map[string]map[chan struct{}]bool // container ID → who wants to know that something happened to it
}

// New serves until Close.
func New(c Config) *Streams {
	s := &Streams{c: c, ears: map[string]map[chan struct{}]bool{}}
	s.unsubscribe = c.Runtime.Subscribe(s.happened)
	return s
}

// Close ends what New began; streams that are open go on until they end.
func (s *Streams) Close() { s.unsubscribe() }

func (s *Streams) happened(e container.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, ears := range s.ears {
		if id != e.ContainerID && e.Kind != container.Gap {
			continue
		}
		for ear := range ears {
			select {
			case ear <- struct{}{}:
			default: // it has not yet looked at the last
			}
		}
	}
}

// ended returns what is closed when the container has ended and all its output
// is in its log. It watches until then or until ctx ends.
func (s *Streams) ended(ctx context.Context, id string) <-chan struct{} {
	ear := make(chan struct{}, 1)
	s.mu.Lock()
	if s.ears[id] == nil {
		s.ears[id] = map[chan struct{}]bool{}
	}
	s.ears[id][ear] = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if delete(s.ears[id], ear); len(s.ears[id]) == 0 {
				delete(s.ears, id)
			}
		}()
		for {
			// While the runtime does not answer, the container counts as running; Gap says when it is back.
			c, err := s.c.Runtime.Container(ctx, id)
			if errors.Is(err, container.ErrNotFound) || err == nil && c.State == container.Exited {
				break
			}
			select {
			case <-ear:
			case <-ctx.Done():
				return
			}
		}
		s.drain(ctx, id)
		close(done)
	}()
	return done
}

// drain makes the log of a container that has ended complete. If the keeper
// cannot be reached the log is what it is.
func (s *Streams) drain(ctx context.Context, id string) {
	if err := s.c.Drain(ctx, id); err != nil && ctx.Err() == nil {
		s.c.Log.Warn("end of log may be missing", "container", id, "error", err)
	}
}

// ServeLog writes a container's log.
func (s *Streams) ServeLog(w http.ResponseWriter, r *http.Request, p *corev1.Pod, o *corev1.PodLogOptions) {
	name, err := containerName(p, o.Container)
	if err != nil {
		refuse(w, err)
		return
	}
	id, err := logOf(p, name, o.Previous)
	if err != nil {
		refuse(w, err)
		return
	}
	path, err := s.path(p, name, id)
	if err != nil {
		refuse(w, err)
		return
	}
	options := logs.OptionsOf(o, time.Now())
	if options.Follow {
		options.Ended = s.ended(r.Context(), id)
	} else if state := status(p, name).State; state.Running == nil || o.Previous {
		s.drain(r.Context(), id)
	}
	out := &body{ResponseWriter: w}
	err = logs.Read(r.Context(), path, options, out)
	switch {
	case err == nil:
		out.begin()
	case errors.Is(err, fs.ErrNotExist) && !out.begun:
		refuse(w, apierrors.NewBadRequest(fmt.Sprintf("the log of container %q in pod %q was removed", name, p.Name)))
	case r.Context().Err() != nil: // the client has gone
	case !out.begun:
		refuse(w, apierrors.NewInternalError(err))
	default:
		s.c.Log.Warn("log not read to its end", "pod", p.Namespace+"/"+p.Name, "container", name, "error", err)
		panic(http.ErrAbortHandler) // or the client takes what it has for everything
	}
}

// body is an answer whose status is sent with its first byte or flush.
type body struct {
	http.ResponseWriter
	begun bool
}

func (b *body) begin() {
	if !b.begun {
		b.begun = true
		b.Header().Set("Content-Type", "text/plain")
		b.WriteHeader(http.StatusOK)
	}
}

// Write implements [io.Writer].
func (b *body) Write(p []byte) (int, error) {
	b.begin()
	return b.ResponseWriter.Write(p)
}

// Flush sends what was written.
func (b *body) Flush() {
	b.begin()
	// The one who cannot be flushed sends when full.
	_ = http.NewResponseController(b.ResponseWriter).Flush()
}

// path of the log of one container of p.
func (s *Streams) path(p *corev1.Pod, name, id string) (string, error) {
	_, attempt, _ := cutLast(id, ".")
	n, err := strconv.ParseUint(attempt, 10, 32)
	if err != nil {
		return "", apierrors.NewInternalError(fmt.Errorf("container ID %q of container %q in pod %q has no attempt", id, name, p.Name))
	}
	return pod.LogPath(p, name, pod.Machine{LogDir: s.c.LogDir}, uint32(n)), nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// defaultContainer is the annotation by which a pod says which of its
// containers is meant when none is named.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// containerName is the container that a client means.
func containerName(p *corev1.Pod, name string) (string, error) {
	names := make([]string, 0, len(p.Spec.Containers))
	for _, c := range p.Spec.Containers {
		names = append(names, c.Name)
	}
	if name == "" {
		name = p.Annotations[defaultContainer]
	}
	switch {
	case name == "" && len(names) == 1:
		return names[0], nil
	case name == "":
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %v", p.Name, names))
	}
	for _, c := range p.Spec.InitContainers {
		names = append(names, c.Name)
	}
	for _, c := range p.Spec.EphemeralContainers {
		names = append(names, c.Name)
	}
	for _, n := range names {
		if n == name {
			return name, nil
		}
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, p.Name))
}

// status of a container; without one it is just being made.
func status(p *corev1.Pod, name string) corev1.ContainerStatus {
	for _, of := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for _, c := range of {
			if c.Name == name {
				return c
			}
		}
	}
	return corev1.ContainerStatus{
		Name:  name,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
	}
}

// logOf finds the container, as the runtime calls it, whose log is wanted: the
// running one, else the last that ran. The texts are kubelet's.
func logOf(p *corev1.Pod, name string, previous bool) (string, error) {
	c := status(p, name)
	last := ""
	if t := c.LastTerminationState.Terminated; t != nil {
		last = runtimeID(t.ContainerID)
	}
	switch {
	case previous && last == "":
		return "", apierrors.NewBadRequest(fmt.Sprintf("previous terminated container %q in pod %q not found", name, p.Name))
	case previous:
		return last, nil
	case c.State.Running != nil:
		return runtimeID(c.ContainerID), nil
	case c.State.Terminated != nil && c.State.Terminated.ContainerID != "":
		return runtimeID(c.State.Terminated.ContainerID), nil
	case last != "":
		return last, nil
	case c.State.Terminated != nil || c.LastTerminationState.Terminated != nil:
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is terminated", name, p.Name))
	}
	return "", waiting(p, c)
}

// runningOf finds the container, as the runtime calls it, that must be running.
func runningOf(p *corev1.Pod, name string) (string, error) {
	c := status(p, name)
	switch {
	case c.State.Running != nil:
		return runtimeID(c.ContainerID), nil
	case c.State.Terminated != nil:
		return "", &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
			Message: fmt.Sprintf("container not found (%q): it has terminated with exit code %d", name, c.State.Terminated.ExitCode),
		}}
	}
	return "", waiting(p, c)
}

func waiting(p *corev1.Pod, c corev1.ContainerStatus) error {
	text := fmt.Sprintf("container %q in pod %q is waiting to start", c.Name, p.Name)
	switch w := c.State.Waiting; {
	case w == nil:
		text += " - no logs yet"
	case w.Reason == "ErrImagePull":
		text += ": image can't be pulled"
	case w.Reason == "ImagePullBackOff":
		text += ": trying and failing to pull image"
	default:
		text += ": " + w.Reason
	}
	return apierrors.NewBadRequest(text)
}

// runtimeID is the container's ID without the runtime's name: containerd://ID.
func runtimeID(id string) string {
	if _, after, ok := strings.Cut(id, "://"); ok {
		return after
	}
	return id
}

// refuse answers with an error as Kubernetes' API does.
func refuse(w http.ResponseWriter, err error) {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	st := known.Status()
	st.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	b, err := json.Marshal(st)
	if err != nil {
		panic(err) // plain strings and numbers
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(st.Code))
	_, _ = w.Write(b) // a client that has gone needs no answer
}
