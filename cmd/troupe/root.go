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
	"k8s.io/kubectl/pkg/cmd/annotate"
	"k8s.io/kubectl/pkg/cmd/apiresources"
	"k8s.io/kubectl/pkg/cmd/apply"
	"k8s.io/kubectl/pkg/cmd/attach"
	"k8s.io/kubectl/pkg/cmd/autoscale"
	"k8s.io/kubectl/pkg/cmd/certificates"
	"k8s.io/kubectl/pkg/cmd/completion"
	"k8s.io/kubectl/pkg/cmd/create"
	"k8s.io/kubectl/pkg/cmd/debug"
	"k8s.io/kubectl/pkg/cmd/delete"
	"k8s.io/kubectl/pkg/cmd/describe"
	"k8s.io/kubectl/pkg/cmd/diff"
	"k8s.io/kubectl/pkg/cmd/drain"
	"k8s.io/kubectl/pkg/cmd/edit"
	"k8s.io/kubectl/pkg/cmd/events"
	"k8s.io/kubectl/pkg/cmd/exec"
	"k8s.io/kubectl/pkg/cmd/explain"
	"k8s.io/kubectl/pkg/cmd/expose"
	"k8s.io/kubectl/pkg/cmd/get"
	"k8s.io/kubectl/pkg/cmd/kustomize"
	"k8s.io/kubectl/pkg/cmd/label"
	"k8s.io/kubectl/pkg/cmd/logs"
	"k8s.io/kubectl/pkg/cmd/options"
	"k8s.io/kubectl/pkg/cmd/patch"
	"k8s.io/kubectl/pkg/cmd/portforward"
	"k8s.io/kubectl/pkg/cmd/replace"
	"k8s.io/kubectl/pkg/cmd/rollout"
	"k8s.io/kubectl/pkg/cmd/run"
	"k8s.io/kubectl/pkg/cmd/scale"
	"k8s.io/kubectl/pkg/cmd/set"
	"k8s.io/kubectl/pkg/cmd/taint"
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
	a.registerProxy()
	flags := root.PersistentFlags()
	flags.StringVar(&a.socket, "socket", defaultSocket(), "The agent's unix socket; TROUPE_SOCKET sets it too")
	flags.StringVarP(&a.namespace, "namespace", "n", "", "The namespace of what the command is about")
	flags.StringVar(&a.timeout, "request-timeout", "0", "How long to wait for one answer of the agent (1s, 2m); 0: for ever")
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	flags.AddGoFlag(logging.Lookup("v"))

	f := cmdutil.NewFactory(cmdutil.NewMatchVersionFlags(a)) // which also names the version that exec and logs speak
	groups := templates.CommandGroups{
		{Message: "This machine:", Commands: []*cobra.Command{
			newUp(a, streams),
			newDown(a, streams),
			newDoctor(a, streams),
			newImage(a, streams),
		}},
		{Message: "Objects, as with kubectl:", Commands: []*cobra.Command{
			apply.NewCmdApply("troupe", f, streams),
			create.NewCmdCreate(f, streams),
			run.NewCmdRun(f, streams),
			completing(f, get.NewCmdGet("troupe", f, streams)),
			describe.NewCmdDescribe("troupe", f, streams),
			events.NewCmdEvents(f, streams),
			explain.NewCmdExplain("troupe", f, streams),
			edit.NewCmdEdit(f, streams),
			patch.NewCmdPatch(f, streams),
			replace.NewCmdReplace(f, streams),
			diff.NewCmdDiff(f, streams),
			label.NewCmdLabel(f, streams),
			annotate.NewCmdAnnotate("troupe", f, streams),
			scale.NewCmdScale(f, streams),
			set.NewCmdSet(f, streams),
			wait.NewCmdWait(f, streams),
			delete.NewCmdDelete(f, streams),
			kustomize.NewCmdKustomize(streams),
		}},
		{Message: "Containers, as with kubectl:", Commands: []*cobra.Command{
			logs.NewCmdLogs(f, streams),
			exec.NewCmdExec(f, streams),
			attach.NewCmdAttach(f, streams),
			portforward.NewCmdPortForward(f, streams),
			newCp(f, streams),
			completing(f, debug.NewCmdDebug(f, streams)),
			newTop(f, streams),
		}},
		{Message: "Nodes, as with kubectl:", Commands: []*cobra.Command{
			drain.NewCmdCordon(f, streams),
			drain.NewCmdUncordon(f, streams),
			drain.NewCmdDrain(f, streams),
			taint.NewCmdTaint(f, streams),
		}},
		{Message: "The system itself:", Commands: []*cobra.Command{
			newActors(a, streams),
			newVersion(a, streams),
			newClusterInfo(a, f, streams),
			apiresources.NewCmdAPIResources(f, streams),
			apiresources.NewCmdAPIVersions(f, streams),
			newAuth(f, streams),
		}},
		{Message: "This command:", Commands: []*cobra.Command{
			completion.NewCmdCompletion(streams.Out, ""),
			newConfig(f, streams),
		}},
	}
	groups.Add(root)
	templates.ActsAsRootCommand(root, []string{"options"}, groups...)
	root.AddCommand(options.NewCmdOptions(streams.Out))
	// Of these verbs the agent has no kind yet, and says so.
	for _, cmd := range []*cobra.Command{
		autoscale.NewCmdAutoscale(f, streams),
		certificates.NewCmdCertificate(f, streams),
		expose.NewCmdExposeService(f, streams),
		rollout.NewCmdRollout("troupe", f, streams),
	} {
		cmd.Hidden = true
		root.AddCommand(cmd)
	}
	utilcomp.SetFactoryForCompletion(f)
	cmdutil.CheckErr(root.RegisterFlagCompletionFunc("namespace", func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return utilcomp.CompGetResource(f, "namespace", begun), cobra.ShellCompDirectiveNoFileComp
	}))
	rename(root)
	return root
}

// completing gives a command completion that kubectl's own constructor, which
// would import itself, leaves to its root.
func completing(f cmdutil.Factory, cmd *cobra.Command) *cobra.Command {
	cmd.ValidArgsFunction = utilcomp.ResourceTypeAndNameCompletionFunc(f)
	return cmd
}

// defaultSocket is where the agent is looked for when no flag says so.
func defaultSocket() string {
	if s := os.Getenv("TROUPE_SOCKET"); s != "" {
		return s
	}
	return place.Dirs{Run: place.RunDir}.Socket()
}

var renamed = strings.NewReplacer("kubectl ", "troupe ", "completion.d/kubectl", "completion.d/troupe")

// rename puts troupe's name into the help of kubectl's commands.
func rename(cmd *cobra.Command) {
	for _, text := range []*string{&cmd.Long, &cmd.Example, &cmd.Short} {
		*text = renamed.Replace(*text)
	}
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { f.Usage = renamed.Replace(f.Usage) })
	for _, c := range cmd.Commands() {
		rename(c)
	}
}
