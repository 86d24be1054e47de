package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/user"
	"runtime"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/oauth/metadata"
)

const (
	serveAddress     = "127.0.0.1:16925"
	linkLocal        = "169.254.169.254"
	linkLocalAddress = linkLocal + ":80"
)

// serveFlags are those of the command serve.
type serveFlags struct {
	address   string
	exposed   bool
	linkLocal bool
	secret    bool
	hosts     []string
	users     []string
}

// serveJSON tells programs where the service is.
type serveJSON struct {
	Address string `json:"address"`
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve tokens to other programs as a metadata service",
		Long: "Serves IAM tokens that renew by themselves, as the metadata service of a virtual machine\n" +
			"does, until it is told to end. It prints " + metadataVariable + "=ADDRESS, the variable that the\n" +
			"official SDKs for Go and Python read. For a single program, \"ycauth run\" is safer.\n\n" +
			"Every program of the user gets tokens, and they are good for everything that the user\n" +
			"may do. On Linux, other users get none, except root and those of --allow-user. Elsewhere\n" +
			"the system does not tell users apart, and the address has a secret path (--secret-path).\n" +
			"Requests of browsers and through proxies are rejected on all systems.\n\n" +
			"With --link-local the service is at " + linkLocal + ", where programs look that do not read\n" +
			"the variable, such as Terraform's provider. That is for Linux, and needs the capabilities\n" +
			"NET_ADMIN and NET_BIND_SERVICE, which setcap gives the program and root has. Root needs a\n" +
			"profile of its own, and --allow-user for others. The address is on the loopback interface\n" +
			"for as long as the service runs, and for a minute after it was killed.\n\n" +
			"An --address that others can reach, as in a container, needs --exposed: everyone who\n" +
			"reaches it gets tokens. Only requests with the address itself or one of --host as their\n" +
			"header Host are answered.",
		Example: "  ycauth serve\n" +
			"  sudo setcap cap_net_admin,cap_net_bind_service+ep \"$(command -v ycauth)\"; ycauth serve --link-local\n" +
			"  ycauth serve --address 0.0.0.0:8080 --exposed --host ycauth:8080",
		Args: noArgs,
	}
	cmd.Flags().StringVar(&f.address, "address", serveAddress, "IP address and port to listen on; port 0 is a random one")
	cmd.Flags().BoolVar(&f.exposed, "exposed", false, "allow an address that other machines or containers can reach, and every user")
	cmd.Flags().BoolVar(&f.linkLocal, "link-local", false, "listen on "+linkLocalAddress+", which is put on the loopback interface (Linux)")
	cmd.Flags().BoolVar(&f.secret, "secret-path", runtime.GOOS != "linux", "answer only under a random path, which is part of the address that is printed")
	cmd.Flags().StringSliceVar(&f.hosts, "host", nil, "also answer requests to this HOST:PORT (repeatable)")
	cmd.Flags().StringSliceVar(&f.users, "allow-user", nil, "also answer programs of this user, by name or ID (repeatable; Linux)")
	cmd.MarkFlagsMutuallyExclusive("address", "link-local")
	cmd.MarkFlagsMutuallyExclusive("exposed", "link-local")
	cmd.MarkFlagsMutuallyExclusive("exposed", "allow-user")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error { return a.serve(ctx, f) })
	return cmd
}

func (a *app) serve(ctx context.Context, f serveFlags) error {
	if f.linkLocal {
		f.address = linkLocalAddress
	}
	address, err := netip.ParseAddrPort(f.address)
	if err != nil {
		return usagef("--address is %q: want an IP address and a port, such as %s", f.address, serveAddress)
	}
	private := address.Addr().Unmap().IsLoopback() || f.linkLocal
	if !private && !f.exposed {
		return usagef("--address %s: other machines or containers may reach it, and everyone who does would get tokens that are good for all that the user may do. If that is intended, add --exposed", address)
	}
	users, err := userIDs(f.users)
	if err != nil {
		return err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if _, err := c.freshToken(ctx, freshFlags{}); err != nil {
		return err
	}
	if f.linkLocal {
		remove, err := a.addLinkLocal(ctx)
		if err != nil {
			return err
		}
		defer remove()
	}
	network := "tcp6"
	if address.Addr().Is4() {
		network = "tcp4" // 0.0.0.0 is IPv4 alone
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, address.String())
	if err != nil {
		return err
	}
	opts := c.metadataOptions()
	opts.Hosts, opts.Users, opts.AnyUser = f.hosts, users, !private
	if f.secret {
		opts.Secret = rand.Text()
	}
	service := c.serveMetadata([]net.Listener{l}, opts)
	defer service.stop()
	if err := a.announce(l.Addr().String(), opts, private); err != nil {
		return err
	}
	select {
	case <-ctx.Done(): // the way to end it
		return nil
	case err := <-service.failed:
		return err
	}
}

// announce says where the service is, and what that means.
func (a *app) announce(address string, opts metadata.Options, private bool) error {
	if opts.Secret != "" {
		address += "/" + opts.Secret
	}
	var err error
	if a.output == outputJSON {
		err = a.printJSON(serveJSON{address})
	} else {
		_, err = fmt.Fprintln(a.stdout, metadataVariable+"="+address)
	}
	switch {
	case err != nil:
		return err
	case a.stdout.failed() != nil:
		return a.stdout.failed()
	case !private:
		a.warn("everyone who reaches %s gets tokens of profile %q until this command ends", address, a.profileName)
	default:
		a.say("Every program of this user that reads %s gets tokens until Ctrl-C.", metadataVariable)
	}
	return nil
}

// userIDs are the IDs of users that are given by name or ID.
func userIDs(names []string) (ids []int, err error) {
	if len(names) > 0 && runtime.GOOS != "linux" {
		return nil, usagef("--allow-user: this system does not tell users apart; leave it out")
	}
	for _, name := range names {
		id, err := strconv.Atoi(name)
		if err != nil {
			u, err := user.Lookup(name)
			if err != nil {
				return nil, usagef("--allow-user: there is no user %q", name)
			}
			if id, err = strconv.Atoi(u.Uid); err != nil {
				return nil, errors.New("--allow-user: the ID of " + name + " is no number")
			}
		}
		if id < 0 {
			return nil, usagef("--allow-user: there is no user %d", id)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
