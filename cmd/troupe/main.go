// Command troupe is the command line of Troupe: the verbs that kubectl has are
// kubectl's own, the others talk to the agent over gRPC. Both find it at its
// unix socket.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	if err := newRoot(streams).Execute(); err != nil && !errors.Is(err, pflag.ErrHelp) {
		if !errors.Is(err, cmdutil.ErrExit) { // then all has been said
			fmt.Fprintln(os.Stderr, "error: "+err.Error())
		}
		os.Exit(1)
	}
}
