package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// tokenVariables are what programs for Yandex Cloud call an IAM token.
var tokenVariables = []string{"YC_TOKEN", "IAM_TOKEN"}

func (a *app) execCommand() *cobra.Command {
	fresh := freshFlags{least: minExecLife}
	cmd := &cobra.Command{
		Use:   "exec -- COMMAND [ARGUMENT…]",
		Short: "Run a command with YC_TOKEN and IAM_TOKEN set",
		Long: "Runs a command with an IAM token in the environment variables YC_TOKEN and IAM_TOKEN.\n" +
			"The token is not renewed while the command runs: it is valid for at least a minute, and\n" +
			"for 12 hours at most. The exit code is the command's, 127 if the command was not found,\n" +
			"and 126 if it could not be run. For commands that run longer, see \"ycauth run\".",
		Example: "  ycauth exec -- terraform plan",
		Args:    a.commandArgs("exec -- terraform plan"),
	}
	cmd.Flags().SetInterspersed(false) // the command's flags are its own
	fresh.register(cmd.Flags(), false)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error { return a.exec(ctx, args, fresh) })
	return cmd
}

// commandArgs rejects a command line without a command to run.
func (a *app) commandArgs(example string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("a command is missing, such as in %q", a.commandFor(example))
		}
		return nil
	}
}

func (a *app) exec(ctx context.Context, args []string, fresh freshFlags) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return cannotRun(args[0], err)
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	tok, err := c.token(ctx, fresh)
	if err != nil {
		return err
	}
	return cannotRun(args[0], a.execute(path, args, withToken(os.Environ(), tokenVariables, tok.AccessToken)))
}

// minExecLife is how long a token has to last: the command cannot get another one.
const minExecLife = time.Minute

// withToken is an environment with the token in the variables that are named, and in none
// of the others that programs read it from.
func withToken(environ, names []string, token string) []string {
	out := without(environ, append(slices.Clone(names), tokenVariables...)...)
	for _, name := range names {
		out = append(out, name+"="+token)
	}
	return out
}

// without is an environment without these variables.
func without(environ []string, names ...string) []string {
	var out []string
	for _, entry := range environ {
		if name, _, _ := strings.Cut(entry, "="); !slices.Contains(names, name) {
			out = append(out, entry)
		}
	}
	return out
}

// cannotRun gives the exit codes that shells use (POSIX, Shell Command Language,
// 2.8.2).
func cannotRun(name string, err error) error {
	var coded codedError
	switch {
	case err == nil || errors.As(err, &coded) || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return codedError{exitNotFound, fmt.Errorf("%s: command not found", name)}
	}
	if failed := (*exec.Error)(nil); errors.As(err, &failed) { // names the command again
		err = failed.Err
	}
	return codedError{exitCannotRun, fmt.Errorf("%s: cannot be run: %w", name, err)}
}
