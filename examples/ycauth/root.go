package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// app is one run of the program.
type app struct {
	system
	stdout, stderr *stream // instead of those of the system
	signals        *signals
	profileName    string
	endpoint       endpointFlags
	output         string
	verbose        bool
	started        bool // a command runs: what fails now is not the usage
	plugin         bool // whoever runs the command drops the token of one that fails
	unattended     bool // nobody can be asked for a PIN

	// lost says that a refresh token could not be saved, without which there is no
	// session any more.
	lost atomic.Bool
}

// run carries out the command and returns the exit code.
func run(sys system) int {
	a := &app{
		system: sys, signals: watchSignals(),
		stdout: newStream(sys.stdout, sys.getenv), stderr: newStream(sys.stderr, sys.getenv),
	}
	defer a.signals.stop()
	cmd, err := a.root().ExecuteContextC(a.signals.ctx)
	if err != nil && !a.started {
		err = usageError{err}
	}
	if failed := a.stdout.failed(); failed != nil {
		err = outputError{failed} // whatever else is wrong follows from it
	}
	switch {
	case err == nil && a.lost.Load() && !a.plugin:
		return exitLogin // everything was said
	case err == nil:
		return exitOK
	}
	return a.report(a.signals.ctx, cmd, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ycauth",
		Short: "Log in to Yandex Cloud and get IAM tokens",
		Long: "Ycauth logs you in to Yandex Cloud and gives other programs valid IAM tokens. It renews\n" +
			"them with a refresh token that is bound to a key, in a file or on a YubiKey.\n\n" +
			"Exit codes: 0 done, 1 failure, 2 usage error, 3 log in again, 4 temporary failure,\n" +
			"5 permission denied, 6 key error, 130 interrupted; see \"ycauth help exit-codes\".",
		Version:                    version(),
		SuggestionsMinimumDistance: 2,
		Args:                       noArgs,
		SilenceUsage:               true,
		SilenceErrors:              true,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return errors.New("a command is missing") },
	}
	root.SetArgs(a.args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)

	f := root.PersistentFlags()
	f.StringVar(&a.profileName, "profile", a.env("YCAUTH_PROFILE", defaultProfile), "profile to use ($YCAUTH_PROFILE)")
	f.StringVarP(&a.output, "output", "o", outputTable, "output format: table or json")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "show requests and events on stderr, without secrets")
	a.endpoint.register(f, a.getenv)
	complete(root, "profile", a.completeProfiles)
	complete(root, "output", cobra.FixedCompletions([]string{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp))

	root.AddCommand(
		a.loginCommand(), a.tokenCommand(), a.execCommand(), a.runCommand(), a.serveCommand(), a.statusCommand(), a.listCommand(), a.revokeCommand(),
		a.keyCommand(), a.kubeCommand(), a.dockerCommand(), a.logoutCommand(), exitCodesCommand(), a.versionCommand(),
	)
	root.SetFlagErrorFunc(flagError)
	strictHelp(root)
	strictCompletion(root)
	return root
}

// action makes a command's RunE of fn.
func (a *app) action(fn func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if a.output != outputTable && a.output != outputJSON {
			return fmt.Errorf("--output is %q: want %s or %s", a.output, outputTable, outputJSON)
		}
		if name := emptyFlag(cmd.Flags()); name != "" {
			return fmt.Errorf("--%s is empty", name)
		}
		if err := a.endpoint.check(cmd.Name() == "login"); err != nil {
			return err
		}
		a.started = true
		return fn(cmd.Context(), args)
	}
}

// mayBeEmpty is the annotation of a flag whose empty value means something.
const mayBeEmpty = "ycauth_may_be_empty"

// emptyFlag is the name of a flag that was given with an empty value, or "": an
// unset variable in a script must not widen what a command does.
func emptyFlag(flags *pflag.FlagSet) (name string) {
	flags.Visit(func(f *pflag.Flag) {
		if v := f.Value.String(); (v == "" || v == "[]") && f.Annotations[mayBeEmpty] == nil {
			name = f.Name
		}
	})
	return name
}

// env returns a variable of the environment, or what stands in for an empty one.
func (a *app) env(name, otherwise string) string {
	if v := a.getenv(name); v != "" {
		return v
	}
	return otherwise
}
