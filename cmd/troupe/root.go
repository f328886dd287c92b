package main

import (
	"flag"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/kubectl/pkg/cmd/apiresources"
	"k8s.io/kubectl/pkg/cmd/apply"
	"k8s.io/kubectl/pkg/cmd/completion"
	"k8s.io/kubectl/pkg/cmd/create"
	"k8s.io/kubectl/pkg/cmd/delete"
	"k8s.io/kubectl/pkg/cmd/describe"
	"k8s.io/kubectl/pkg/cmd/get"
	"k8s.io/kubectl/pkg/cmd/label"
	"k8s.io/kubectl/pkg/cmd/logs"
	"k8s.io/kubectl/pkg/cmd/options"
	"k8s.io/kubectl/pkg/cmd/scale"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/cmd/wait"
	utilcomp "k8s.io/kubectl/pkg/util/completion"
	"k8s.io/kubectl/pkg/util/templates"
	"k8s.io/kubectl/pkg/util/term"

	"github.com/troupe-sh/troupe/cmd/internal/place"
)

// newRoot is the whole command line.
func newRoot(streams genericiooptions.IOStreams) *cobra.Command {
	root := &cobra.Command{
		Use:   "troupe",
		Short: "Run containers on a group of machines",
		Long: templates.LongDesc(`
			troupe runs containers on a group of machines, from the manifests that Kubernetes takes.

			It talks to the agent of this machine at the unix socket /run/troupe/troupe.sock, or
			the one that --socket or TROUPE_SOCKET names. "troupe up" starts an agent.`),
		SilenceErrors: true,
		SilenceUsage:  true,
		Run:           func(cmd *cobra.Command, _ []string) { _ = cmd.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			rest.SetDefaultWarningHandler(rest.NewWarningWriter(streams.ErrOut, rest.WarningWriterOptions{
				Deduplicate: true, Color: term.AllowsColorOutput(streams.ErrOut),
			}))
		},
	}
	cmdutil.BehaviorOnFatal(fatal(streams.ErrOut, os.Exit))

	a := &agent{warnings: printers.NewWarningPrinter(streams.ErrOut, printers.WarningPrinterOptions{Color: term.AllowsColorOutput(streams.ErrOut)})}
	flags := root.PersistentFlags()
	flags.StringVar(&a.socket, "socket", defaultSocket(), "The agent's unix socket; TROUPE_SOCKET sets it too")
	flags.StringVarP(&a.namespace, "namespace", "n", "", "The namespace of what the command is about")
	flags.StringVar(&a.timeout, "request-timeout", "0", "How long to wait for one answer of the agent (1s, 2m); 0: for ever")
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	flags.AddGoFlag(logging.Lookup("v"))

	f := cmdutil.NewFactory(cmdutil.NewMatchVersionFlags(a)) // which also names the version that exec and logs speak
	getCmd := get.NewCmdGet("troupe", f, streams)
	getCmd.ValidArgsFunction = utilcomp.ResourceTypeAndNameCompletionFunc(f)
	groups := templates.CommandGroups{
		{Message: "This machine:", Commands: []*cobra.Command{
			newUp(a, streams),
			newDown(a, streams),
			newImage(a, streams),
		}},
		{Message: "Objects, as with kubectl:", Commands: []*cobra.Command{
			apply.NewCmdApply("troupe", f, streams),
			create.NewCmdCreate(f, streams),
			getCmd,
			describe.NewCmdDescribe("troupe", f, streams),
			delete.NewCmdDelete(f, streams),
			scale.NewCmdScale(f, streams),
			label.NewCmdLabel(f, streams),
			wait.NewCmdWait(f, streams),
		}},
		{Message: "Containers, as with kubectl:", Commands: []*cobra.Command{
			logs.NewCmdLogs(f, streams),
			newExec(a, f, streams),
		}},
		{Message: "The system itself:", Commands: []*cobra.Command{
			newActors(a, streams),
			newVersion(a, streams),
		}},
	}
	groups.Add(root)
	templates.ActsAsRootCommand(root, []string{"options"}, groups...)
	root.AddCommand(
		apiresources.NewCmdAPIResources(f, streams),
		completion.NewCmdCompletion(streams.Out, ""),
		options.NewCmdOptions(streams.Out),
	)
	utilcomp.SetFactoryForCompletion(f)
	rename(root)
	return root
}

// defaultSocket is where the agent is looked for when no flag says so.
func defaultSocket() string {
	if s := os.Getenv("TROUPE_SOCKET"); s != "" {
		return s
	}
	return place.Dirs{Run: place.RunDir}.Socket()
}

// rename puts troupe's name into the help of kubectl's commands.
func rename(cmd *cobra.Command) {
	for _, text := range []*string{&cmd.Long, &cmd.Example, &cmd.Short} {
		*text = strings.ReplaceAll(*text, "kubectl ", "troupe ")
	}
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "kubectl ", "troupe ") })
	for _, c := range cmd.Commands() {
		rename(c)
	}
}
