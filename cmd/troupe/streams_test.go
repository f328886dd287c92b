package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/stream"
)

// machine runs what is executed in a container as a process of the test.
type machine struct{ container.Runtime }

func (machine) Subscribe(func(container.Event)) func() { return func() {} }

func (machine) Exec(ctx context.Context, _ string, e container.ExecSpec) (int, error) {
	cmd := exec.CommandContext(ctx, e.Command[0], e.Command[1:]...)
	cmd.Stdout, cmd.Stderr = e.Stdout, e.Stderr
	if e.Stdin != nil {
		in, err := cmd.StdinPipe()
		if err != nil {
			return 0, err
		}
		go func() { // the end of the process is not that of its standard input
			defer in.Close()
			_, _ = io.Copy(in, e.Stdin)
		}()
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// running are streams of pods whose containers all run, on a machine.
type running struct{ *stream.Streams }

func containers(t *testing.T) running {
	s := stream.New(stream.Config{Runtime: machine{}, LogDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(s.Close)
	return running{s}
}

func started(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.Status.ContainerStatuses = nil
	for _, c := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, ContainerID: "containerd://" + string(pod.UID) + "." + c.Name + ".0",
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		})
	}
	return pod
}

func (running) ServeLog(w http.ResponseWriter, _ *http.Request, pod *corev1.Pod, o *corev1.PodLogOptions) {
	fmt.Fprintf(w, "log of %s/%s\n", pod.Name, o.Container)
}

func (r running) ServeExec(w http.ResponseWriter, req *http.Request, pod *corev1.Pod, o *corev1.PodExecOptions) {
	r.Streams.ServeExec(w, req, started(pod), o)
}
