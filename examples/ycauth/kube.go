package main

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"
)

// execCredential is the answer of a credential plugin (Kubernetes,
// client.authentication.k8s.io/v1, ExecCredential).
type execCredential struct {
	APIVersion string               `json:"apiVersion"`
	Kind       string               `json:"kind"`
	Status     execCredentialStatus `json:"status"`
}

type execCredentialStatus struct {
	ExpirationTimestamp time.Time `json:"expirationTimestamp,omitzero"`
	Token               string    `json:"token"`
}

const (
	execCredentialVersion = "client.authentication.k8s.io/v1"
	execCredentialKind    = "ExecCredential"
)

func (a *app) kubeCommand() *cobra.Command {
	var fresh freshFlags
	var login bool
	cmd := &cobra.Command{
		Use:   "kube-credential",
		Short: "Credential plugin for kubectl: print an ExecCredential",
		Long: "Prints an IAM token in the format that kubectl and other Kubernetes clients expect of\n" +
			"a credential plugin. In the kubeconfig:\n\n" +
			"  users:\n" +
			"  - name: yandex-cloud\n" +
			"    user:\n" +
			"      exec:\n" +
			"        apiVersion: " + execCredentialVersion + "\n" +
			"        command: ycauth\n" +
			"        args: [kube-credential]\n" +
			"        interactiveMode: IfAvailable\n\n" +
			"Kubernetes clients run the command again when the API server rejects the token, but\n" +
			"do not say so. So the token is verified each time, with one request to IAM, and\n" +
			"renewed if it was revoked; --verify=false skips that.\n\n" +
			"With args [kube-credential, --login], a login in the browser begins when one is needed,\n" +
			"if the Kubernetes client says that a user is present: with interactiveMode IfAvailable\n" +
			"or Always, in a terminal. If no Kubernetes client runs the command, stdin must be a\n" +
			"terminal.",
		Args: noArgs,
	}
	fresh.register(cmd.Flags(), true)
	cmd.Flags().BoolVar(&login, "login", false, "log in in the browser if needed, and if a user is present")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error { return a.kubeCredential(ctx, fresh, login) })
	return cmd
}

func (a *app) kubeCredential(ctx context.Context, fresh freshFlags, login bool) error {
	if err := a.readExecInfo(); err != nil {
		return err
	}
	a.plugin = true
	tok, err := a.kubeToken(ctx, fresh)
	if login && a.mayLogIn() && loginNeeded(err) {
		if err := a.loginForPlugin(ctx); err != nil {
			return err
		}
		tok, err = a.kubeToken(ctx, fresh)
	}
	if err != nil {
		return err
	}
	return a.printJSON(execCredential{
		APIVersion: execCredentialVersion, Kind: execCredentialKind,
		Status: execCredentialStatus{
			// The field is RFC 3339 to the second: later would be a lie.
			ExpirationTimestamp: tok.Expiry.UTC().Truncate(time.Second), Token: tok.AccessToken,
		},
	})
}

// mayLogIn reports whether a login may begin: a user is present, says the Kubernetes client
// or, if none runs the command, a terminal at stdin. Kubernetes clients go by that as well.
func (a *app) mayLogIn() bool {
	if a.getenv("KUBERNETES_EXEC_INFO") == "" {
		return isTerminal(a.stdin)
	}
	return !a.unattended
}

func (a *app) kubeToken(ctx context.Context, fresh freshFlags) (*oauth2.Token, error) {
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	return c.token(ctx, fresh)
}

// pluginLogin is how long a user has to log in while another program waits.
const pluginLogin = 5 * time.Minute

// loginForPlugin is the command login, whose results would disturb the reader of stdout.
func (a *app) loginForPlugin(ctx context.Context) error {
	stdout := a.stdout
	a.stdout = newStream(io.Discard, a.getenv)
	defer func() { a.stdout = stdout }()
	return a.login(ctx, loginFlags{timeout: pluginLogin})
}

// readExecInfo reads what the Kubernetes client says of itself: the version that
// it wants, and whether its user can be asked. Without it, no Kubernetes
// client runs the command.
func (a *app) readExecInfo() error {
	data := a.getenv("KUBERNETES_EXEC_INFO")
	if data == "" {
		return nil
	}
	var info struct {
		APIVersion string `json:"apiVersion"`
		Spec       struct {
			Interactive bool `json:"interactive"`
		} `json:"spec"`
	}
	if err := json.Unmarshal([]byte(data), &info); err != nil {
		return usagef("$KUBERNETES_EXEC_INFO is not JSON")
	}
	if info.APIVersion != execCredentialVersion {
		return usagef("the Kubernetes client asks for %q: set apiVersion in the kubeconfig to %s", info.APIVersion, execCredentialVersion)
	}
	a.unattended = !info.Spec.Interactive
	return nil
}
