package main

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/metadata"
)

// metadataVariable is where SDKs look for the address of the metadata service.
const metadataVariable = "YC_METADATA_ADDR"

// noVariables is the value of --token-env for none.
const noVariables = "none"

func (a *app) runCommand() *cobra.Command {
	fresh := freshFlags{least: minExecLife}
	var variables []string
	cmd := &cobra.Command{
		Use:   "run -- COMMAND [ARGUMENT…]",
		Short: "Run a command with fresh IAM tokens for as long as it runs",
		Long: "Runs a command, and a metadata service for it that returns a valid IAM token to every\n" +
			"request until the command ends. " + metadataVariable + " is set to the address of the service;\n" +
			"the official SDKs for Go and Python read it. The service listens on a random port of the\n" +
			"loopback interface. On Linux only processes of the same user and of root get tokens. On\n" +
			"other systems the address contains a random path, which other users cannot read.\n\n" +
			"YC_TOKEN and IAM_TOKEN are set to a token, for programs that do not use a metadata\n" +
			"service. It is not renewed while the command runs, and expires after 12 hours at most.\n" +
			"Some programs, such as the Terraform provider, use it even if there is a metadata\n" +
			"service, and fail when it has expired. --token-env " + noVariables + " sets neither variable. The\n" +
			"Terraform provider then also needs \"ycauth serve --link-local\".\n\n" +
			"The command uses the same terminal. Signals that ycauth receives are passed on to it. The\n" +
			"exit code is the command's, 127 if the command was not found, and 126 if it could not be\n" +
			"run. If ycauth is killed, the command gets SIGTERM on Linux and FreeBSD and is ended on\n" +
			"Windows. On other systems it continues, without new tokens.",
		Example: "  ycauth run -- python3 nightly.py\n" +
			"  ycauth run --token-env " + noVariables + " -- ./backup --all",
		Args: a.commandArgs("run -- python3 nightly.py"),
	}
	cmd.Flags().SetInterspersed(false) // the command's flags are its own
	cmd.Flags().StringSliceVar(&variables, "token-env", tokenVariables, "variables to set to a token, which is not renewed; "+noVariables+" for no variable")
	fresh.register(cmd.Flags(), false)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		names, err := tokenNames(variables)
		if err != nil {
			return err
		}
		return a.run(ctx, args, names, fresh)
	})
	return cmd
}

// tokenNames are the variables of --token-env.
func tokenNames(given []string) ([]string, error) {
	if slices.Equal(given, []string{noVariables}) {
		return nil, nil
	}
	for _, name := range given {
		if name == "" || name == metadataVariable || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return nil, usagef("--token-env: %q cannot be the name of the variable; give names such as YC_TOKEN, or %s alone", name, noVariables)
		}
	}
	return given, nil
}

func (a *app) run(ctx context.Context, args, names []string, fresh freshFlags) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return cannotRun(args[0], err)
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	tok, err := c.freshToken(ctx, fresh)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	opts := c.metadataOptions()
	address := l.Addr().String()
	if runtime.GOOS != "linux" {
		opts.Secret = rand.Text()
		address += "/" + opts.Secret
	}
	service := c.serveMetadata([]net.Listener{l}, opts)
	defer service.stop()
	env := withToken(without(os.Environ(), metadataVariable), names, tok.AccessToken)
	env = append(direct(env), metadataVariable+"="+address)
	err = a.spawn(path, args, env)
	service.stop()
	c.close()
	if ended := (signaledError{}); errors.As(err, &ended) {
		a.signals.stop()
		dieOf(ended.signal)
		return codedError{code: ended.code}
	}
	return cannotRun(args[0], err)
}

// direct is an environment in which requests to the loopback interface pass no proxy, if
// there are any: not every library knows by itself that no proxy can reach it.
func direct(environ []string) []string {
	values := make(map[string]string)
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
	}
	proxied := slices.ContainsFunc([]string{"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"}, func(name string) bool { return values[name] != "" })
	if !proxied {
		return environ
	}
	const loopback = "127.0.0.1"
	for _, name := range []string{"no_proxy", "NO_PROXY"} {
		value, set := values[name]
		switch {
		case slices.Contains(strings.Split(value, ","), loopback) || value == "*":
			continue
		case !set && values["no_proxy"]+values["NO_PROXY"] != "" && runtime.GOOS == "windows":
			continue // the names of variables have no case there
		case !set:
			value = values["no_proxy"] + values["NO_PROXY"]
		}
		if value != "" {
			value += ","
		}
		environ = append(without(environ, name), name+"="+value+loopback)
	}
	return environ
}

// signaledError is the end of a command by a signal.
type signaledError struct {
	signal os.Signal
	code   int
}

func (e signaledError) Error() string { return "ended by " + e.signal.String() }

// metadataOptions are what every metadata service of this program has.
func (c *connection) metadataOptions() metadata.Options {
	return metadata.Options{
		Clock:  c.a.now,
		Logger: c.logger,
		ErrorText: func(err error) string {
			if loginNeeded(err) {
				return "log in with \"" + c.a.commandFor("login") + "\""
			}
			return c.a.message(err)
		},
	}
}

// metadataService serves tokens until it is stopped.
type metadataService struct {
	stop   func() // waits for the end of everything
	failed chan error
}

func (c *connection) serveMetadata(listeners []net.Listener, opts metadata.Options) *metadataService {
	server := metadata.New(&announcedSource{c: c}, opts)
	ctx, cancel := context.WithCancel(context.Background())
	s := &metadataService{failed: make(chan error, len(listeners))}
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() {
			if err := server.Serve(ctx, l); err != nil {
				s.failed <- err
			}
		})
	}
	s.stop = sync.OnceFunc(func() {
		cancel()
		_ = server.Close() // always nil
		serving.Wait()
	})
	return s
}

// announcedSource tells the user when there is no token any more, and when there is one
// again: the programs that ask may not say why they fail.
type announcedSource struct {
	c   *connection
	out string // what the user was told; "" if there is a token
}

// TokenContext is called by one goroutine.
func (s *announcedSource) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	tok, err := s.c.client.TokenSource().TokenContext(ctx)
	a := s.c.a
	switch {
	case ctx.Err() != nil || errors.Is(err, oauth.ErrClosed):
	case err == nil && s.out != "":
		s.out = ""
		a.say("ycauth: there are tokens again")
	case err != nil:
		text := a.message(err)
		if loginNeeded(err) {
			text = linef("log in with %q", a.commandFor("login"))
		}
		if text != s.out {
			s.out = text
			a.warn("no IAM token: %s", text)
		}
	}
	return tok, err
}
