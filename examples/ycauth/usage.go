package main

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// version is what the Go tool recorded of the build.
func version() string {
	number, commit, dirty := "(unknown)", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		number = info.Main.Version
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = ", commit " + s.Value[:min(len(s.Value), 12)]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = " with changes"
			}
		}
	}
	return fmt.Sprintf("%s%s%s, %s %s/%s", number, commit, dirty, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// versionCommand does what --version does. Help does not list it.
func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "version",
		Short:  "Print the version, as --version does",
		Args:   noArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(a.stdout, "%s version %s\n", cmd.Root().Name(), version())
			return err
		},
	}
}

// noArgs rejects arguments, and names the commands that one of them may stand for.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasAvailableSubCommands():
		return noSuchCommand(cmd, args[0])
	}
	return fmt.Errorf("%q is one argument too many", args[0])
}

func noSuchCommand(cmd *cobra.Command, name string) error {
	return fmt.Errorf("unknown command %q for %q%s", name, cmd.CommandPath(), didYouMean(cmd.SuggestionsFor(name)))
}

// didYouMean is the end of a sentence.
func didYouMean(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ": did you mean " + strings.Join(names, " or ") + "?"
}

// wanted is what flags take, by their types.
var wanted = map[string]string{
	"bool": "true or false", "duration": "a duration such as 10m", "int": "a whole number", "uint32": "a whole number",
	"stringSlice": "values with commas between them, without quotes",
}

// flagError says what a flag takes in the place of what a parser says, and adds the flag
// that a mistyped one may stand for.
func flagError(cmd *cobra.Command, err error) error {
	if invalid := (*pflag.InvalidValueError)(nil); errors.As(err, &invalid) {
		f := invalid.GetFlag()
		if want := wanted[f.Value.Type()]; want != "" {
			return fmt.Errorf("--%s is %q: want %s", f.Name, invalid.GetValue(), want)
		}
		return fmt.Errorf("--%s is %q: %w", f.Name, invalid.GetValue(), invalid.Unwrap())
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	name, least := unknown.GetSpecifiedName(), 3
	var near []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		d := typos(name, f.Name)
		if len(name) > 3 && strings.HasPrefix(f.Name, name) {
			d = 1
		}
		if d < least {
			least, near = d, nil
		}
		if d == least && d < 3 && len(name) > 2 {
			near = append(near, "--"+f.Name)
		}
	})
	return fmt.Errorf("%w%s", err, didYouMean(near))
}

// typos is the Levenshtein distance of two texts, in bytes.
func typos(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// strictHelp has the command help reject what it has no help for.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	for _, help := range root.Commands() {
		if help.Name() != "help" {
			continue
		}
		show := help.Run
		help.Run = nil
		help.RunE = func(cmd *cobra.Command, args []string) error {
			found, rest, err := root.Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return noSuchCommand(found, rest[0])
			}
			show(cmd, args)
			return nil
		}
	}
}

// strictCompletion has the command completion reject shells that it does not know.
func strictCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, completion := range root.Commands() {
		if completion.Name() != "completion" {
			continue
		}
		completion.Args = noArgs
		completion.SuggestionsMinimumDistance = 2
		completion.RunE = func(cmd *cobra.Command, _ []string) error {
			var shells []string
			for _, shell := range cmd.Commands() {
				shells = append(shells, shell.Name())
			}
			return errors.New("a shell is missing: " + strings.Join(shells, ", "))
		}
	}
}

// exitCodesCommand is a topic of help.
func exitCodesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: "Exit codes:\n\n" + exitCodes() + "\n" +
			"The exit code of \"ycauth exec\" and \"ycauth run\" is otherwise that of the command\n" +
			"that they ran. Only 4 is likely to pass by itself. With 6, it is enough to restore the key file or to insert the\n" +
			"card; if the key is lost, log in again. With 3, a token that was printed is valid all\n" +
			"the same: the session could not be saved, and stderr says why. \"ycauth kube-credential\"\n" +
			"ends with 0 in that case, because kubectl would not use the token otherwise.",
	}
}
