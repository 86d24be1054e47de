package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/ycauth/ycauth-go/internal/netlink"
)

const (
	// linkLocalLife is how long the kernel keeps the address if nobody prolongs it.
	linkLocalLife  = time.Minute
	linkLocalAgain = linkLocalLife / 3

	// linkLocalPatience is how long to look for a service that is there already. The
	// network of a cloud answers in less.
	linkLocalPatience = 300 * time.Millisecond
)

// addLinkLocal puts the address of metadata services on the loopback interface, with a
// lifetime: it goes also if this program is killed.
func (a *app) addLinkLocal(ctx context.Context) (remove func(), err error) {
	d := net.Dialer{Timeout: linkLocalPatience}
	if conn, err := d.DialContext(ctx, "tcp", linkLocalAddress); err == nil {
		conn.Close()
		return nil, codedError{exitFailure, errors.New("there is a metadata service at " + linkLocalAddress + " already: this is a virtual machine of a cloud, or the same command is running")}
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, err
	}
	permanent, err := permanentAddress(lo.Index)
	if err != nil {
		return nil, err
	}
	if permanent {
		return func() {}, nil // an administrator has added it, and keeps it
	}
	err = keepAddress(lo.Index)
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return nil, hintError{fmt.Errorf("this user may not add %s to the loopback interface", linkLocal),
			"Give the program the capabilities: sudo setcap cap_net_admin,cap_net_bind_service+ep \"$(command -v ycauth)\""}
	case err != nil:
		return nil, fmt.Errorf("adding %s to the loopback interface: %w", linkLocal, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var prolonging sync.WaitGroup
	prolonging.Go(func() { a.prolong(ctx, lo.Index) })
	return func() {
		cancel()
		prolonging.Wait()
		if err := changeAddress(lo.Index, syscall.RTM_DELADDR, 0); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			a.warn("%s is still on the loopback interface, for a minute: %s", linkLocal, err)
		}
	}, nil
}

// prolong keeps the address.
func (a *app) prolong(ctx context.Context, index int) {
	tick := time.NewTicker(linkLocalAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := keepAddress(index); err != nil {
				a.warn("%s could not be kept on the loopback interface: %s", linkLocal, err)
			}
		}
	}
}

// Constants of linux/if_addr.h that package syscall does not have.
const (
	ifaCacheinfo = 6
	ifaPermanent = 0x80 // IFA_F_PERMANENT
)

// keepAddress adds the address, or prolongs it.
func keepAddress(index int) error {
	return changeAddress(index, syscall.RTM_NEWADDR, syscall.NLM_F_CREATE|syscall.NLM_F_REPLACE)
}

// changeAddress adds or removes the address (rtnetlink(7)).
func changeAddress(index int, typ, flags uint16) error {
	addr := netip.MustParseAddr(linkLocal).AsSlice()
	request := []byte{syscall.AF_INET, 32, 0, syscall.RT_SCOPE_HOST} // struct ifaddrmsg
	request = binary.NativeEndian.AppendUint32(request, uint32(index))
	request = netlink.Attribute(request, syscall.IFA_LOCAL, addr)
	request = netlink.Attribute(request, syscall.IFA_ADDRESS, addr)
	if typ == syscall.RTM_NEWADDR {
		life := uint32(linkLocalLife / time.Second)
		var info []byte // struct ifa_cacheinfo: preferred, valid, and two timestamps
		for _, v := range []uint32{life, life, 0, 0} {
			info = binary.NativeEndian.AppendUint32(info, v)
		}
		request = netlink.Attribute(request, ifaCacheinfo, info)
	}
	_, err := netlink.Call(syscall.NETLINK_ROUTE, typ, flags, request)
	return err
}

// permanentAddress reports whether the address on the interface has no end.
func permanentAddress(index int) (bool, error) {
	request := make([]byte, syscall.SizeofIfAddrmsg)
	request[0] = syscall.AF_INET
	messages, err := netlink.Call(syscall.NETLINK_ROUTE, syscall.RTM_GETADDR, syscall.NLM_F_DUMP, request)
	if err != nil {
		return false, err
	}
	addr := netip.MustParseAddr(linkLocal).As4()
	for _, m := range messages {
		if m.Type != syscall.RTM_NEWADDR || len(m.Data) < syscall.SizeofIfAddrmsg || int(binary.NativeEndian.Uint32(m.Data[4:])) != index {
			continue
		}
		if netlink.HasAttribute(m.Data[syscall.SizeofIfAddrmsg:], syscall.IFA_LOCAL, addr[:]) {
			return m.Data[2]&ifaPermanent != 0, nil
		}
	}
	return false, nil
}
