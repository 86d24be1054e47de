package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

const (
	// dockerProgram is how docker calls this program, by another name of its file.
	dockerProgram = "docker-credential-ycauth"
	dockerCommand = "docker-credential"

	// registryHost is Yandex Cloud's registry of container images, and registryUser the
	// user whose password is an IAM token.
	registryHost = "cr.yandex"
	registryUser = "iam"

	// maxDockerRequest bounds what docker writes on stdin.
	maxDockerRequest = 64 << 10
)

// errNotFound is the text by which docker knows that there are no credentials, on stdout
// (github.com/docker/docker-credential-helpers, credentials.NewErrCredentialsNotFound).
const errNotFound = "credentials not found in native keychain"

// dockerCredential is a credential in docker's protocol.
type dockerCredential struct {
	ServerURL string
	Username  string
	Secret    string
}

// arguments are those of the command line, or of the command that the program's name
// stands for.
func arguments(args []string) []string {
	if len(args) == 0 {
		return nil
	}
	name := strings.TrimSuffix(filepath.Base(args[0]), ".exe")
	if name == dockerProgram {
		return append([]string{dockerCommand}, args[1:]...)
	}
	return args[1:]
}

func (a *app) dockerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   dockerCommand + " get|store|erase|list",
		Short: "Credential helper for docker",
		Long: "Gives docker, podman and other programs an IAM token as the password for " + registryHost + ". It\n" +
			"is a credential helper of docker, which looks for it by name, so create a link:\n\n" +
			"  sudo ln -s \"$(command -v ycauth)\" /usr/local/bin/" + dockerProgram + "\n\n" +
			"and add to ~/.docker/config.json:\n\n" +
			"  {\"credHelpers\": {\"" + registryHost + "\": \"ycauth\"}}\n\n" +
			"$YCAUTH_PROFILE selects the profile. $YCAUTH_REGISTRIES lists the hosts of other registries\n" +
			"that may get the token, separated by commas. \"docker login\" is not needed, and \"docker\n" +
			"logout\" does not end the session: use \"ycauth logout\".",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains([]string{"get", "store", "erase", "list"}, args[0]) {
				return errors.New("give one of get, store, erase and list")
			}
			return nil
		},
		ValidArgs: []string{"get", "store", "erase", "list"},
		RunE:      a.action(a.dockerCredential),
	}
}

func (a *app) dockerCredential(ctx context.Context, args []string) error {
	a.plugin = true
	if args[0] == "list" {
		users := make(map[string]string)
		for _, host := range a.registries() {
			users[host] = registryUser
		}
		return a.printJSON(users)
	}
	request, err := interruptibly(ctx, func() (string, error) {
		data, err := io.ReadAll(io.LimitReader(a.stdin, maxDockerRequest))
		return strings.TrimSpace(string(data)), err
	})
	if err != nil {
		return err
	}
	switch args[0] {
	case "erase":
		return nil // nothing is stored
	case "store":
		var given dockerCredential
		if err := json.Unmarshal([]byte(request), &given); err != nil {
			return usagef("stdin does not contain a credential in JSON")
		}
		if given.Username != registryUser {
			return usagef("this helper stores no passwords: it gives docker the tokens of profile %q, with the user name %s", a.profileName, registryUser)
		}
		return nil // the next get has a newer token
	}
	if !slices.Contains(a.registries(), registryOf(request)) {
		_, _ = fmt.Fprintln(a.stdout, errNotFound) // run reports what went wrong with it
		return codedError{code: exitFailure}
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	tok, err := c.token(ctx, freshFlags{least: minExecLife})
	if err != nil {
		return err
	}
	return a.printJSON(dockerCredential{request, registryUser, tok.AccessToken})
}

// registries are the hosts that get a token.
func (a *app) registries() []string {
	hosts := []string{registryHost}
	for host := range strings.SplitSeq(a.getenv("YCAUTH_REGISTRIES"), ",") {
		if host = registryOf(strings.TrimSpace(host)); host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// registryOf is the host of what docker calls a server: a host or a URL. It is "" for another
// scheme than https, which gets no token.
func registryOf(server string) string {
	server = strings.TrimPrefix(server, "https://")
	if strings.Contains(server, "://") {
		return ""
	}
	host, _, _ := strings.Cut(server, "/")
	return strings.TrimSuffix(strings.ToLower(host), ":443")
}
