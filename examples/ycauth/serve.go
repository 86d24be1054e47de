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
		Long: "Returns a valid IAM token to every request, as the metadata service of a virtual machine\n" +
			"does, until Ctrl-C or SIGTERM. It prints " + metadataVariable + "=ADDRESS, the variable that the\n" +
			"official SDKs for Go and Python read. For a single program, \"ycauth run\" is safer.\n\n" +
			"Every program of this user gets tokens, which allow everything that the user may do. On\n" +
			"Linux, programs of other users get none, except those of root and of --allow-user. Other\n" +
			"systems do not tell which user a program belongs to, so the address contains a random\n" +
			"path there (--secret-path). Requests from browsers and through proxies are rejected on\n" +
			"all systems.\n\n" +
			"With --link-local the service is at " + linkLocal + ", for programs that ask only there, such\n" +
			"as the Terraform provider. This works on Linux and needs the capabilities NET_ADMIN and\n" +
			"NET_BIND_SERVICE. Root has them; setcap gives them to the program file (see the example).\n" +
			"Root needs a profile of its own (sudo ycauth login), and --allow-user for other users.\n" +
			"The address is removed from the loopback interface when the service ends, or within a\n" +
			"minute after it was killed.\n\n" +
			"An --address that others can reach, for instance in a container, requires --exposed:\n" +
			"everyone who reaches it gets tokens. The header Host of a request must be the address\n" +
			"that the client has connected to, or one of --host.",
		Example: "  ycauth serve\n" +
			"  sudo setcap cap_net_admin,cap_net_bind_service+ep \"$(command -v ycauth)\" && ycauth serve --link-local\n" +
			"  ycauth serve --address 0.0.0.0:8080 --exposed --host ycauth:8080",
		Args: noArgs,
	}
	cmd.Flags().StringVar(&f.address, "address", serveAddress, "IP address and port to listen on; port 0 is a random one")
	cmd.Flags().BoolVar(&f.exposed, "exposed", false, "allow an address that other machines or containers can reach, and give every user tokens")
	cmd.Flags().BoolVar(&f.linkLocal, "link-local", false, "listen on "+linkLocalAddress+", and add that address to the loopback interface (Linux)")
	cmd.Flags().BoolVar(&f.secret, "secret-path", runtime.GOOS != "linux", "give tokens only under a random path, which is part of the printed address")
	cmd.Flags().StringSliceVar(&f.hosts, "host", nil, "accept this HOST:PORT as the header Host as well (repeatable)")
	cmd.Flags().StringSliceVar(&f.users, "allow-user", nil, "give tokens to programs of this user as well, by name or ID (repeatable; Linux)")
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
		return usagef("--address %s: other machines or containers may reach it, and would get tokens that allow everything that the user may do. If that is intended, add --exposed", address)
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
	switch {
	case err != nil && errors.Is(err, errAddressInUse) && f.linkLocal:
		return hintError{err, linef("Another %q may be running, or another program listens there.", a.commandFor("serve --link-local"))}
	case err != nil && errors.Is(err, errAddressInUse):
		free := netip.AddrPortFrom(address.Addr(), 0)
		return hintError{err, linef("Another %q may be running. With --address %s this one takes any free port.", a.commandFor("serve"), free)}
	case err != nil:
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
		a.say("Every program of this user gets tokens at this address until Ctrl-C.")
	}
	return nil
}

// userIDs are the IDs of users that are given by name or ID.
func userIDs(names []string) (ids []int, err error) {
	if len(names) > 0 && runtime.GOOS != "linux" {
		return nil, usagef("--allow-user is for Linux: leave it out")
	}
	for _, name := range names {
		id, err := strconv.Atoi(name)
		if err != nil {
			u, err := user.Lookup(name)
			if err != nil {
				return nil, usagef("--allow-user: there is no user %q", name)
			}
			if id, err = strconv.Atoi(u.Uid); err != nil {
				return nil, errors.New("--allow-user: the ID of " + name + " is not a number")
			}
		}
		if id < 0 {
			return nil, usagef("--allow-user: there is no user %d", id)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
