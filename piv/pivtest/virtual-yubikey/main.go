//go:build linux

// Command virtual-yubikey puts a virtual YubiKey into a reader of the PC/SC daemon that runs on this machine, until it is
// interrupted: to try programs that use PIV without owning the hardware. Keys are kept in memory and gone afterwards.
//
//	go run ./piv/pivtest/virtual-yubikey -pcscd &
//	yubico-piv-tool -a status
//
// With -pcscd it also runs pcscd, which must be installed together with vsmartcard-vpcd (and needs root); without it, a pcscd
// with that driver must already be running.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "virtual-yubikey:", err)
		os.Exit(1)
	}
}

// debianAddr is where a pcscd with the configuration of Debian's vsmartcard-vpcd listens.
const debianAddr = "127.0.0.1:35963"

// options are the flags.
type options struct {
	config virtual.Config
	addr   string
	pcscd  bool
	ca     string
}

func parseFlags(args []string, out *log.Logger, stderr io.Writer) (options, error) {
	var opts options
	fs := flag.NewFlagSet("virtual-yubikey", flag.ContinueOnError)
	fs.SetOutput(stderr)
	firmware := fs.String("firmware", "5.7", "firmware `version`: 4.3, 5.2, 5.3, 5.4, 5.7 or an exact one such as 5.7.1")
	serial := fs.Uint("serial", 10000001, "serial `number`")
	touch := fs.String("touch", "0s", "time after which the sensor is touched, or never")
	fs.DurationVar(&opts.config.TouchTimeout, "touch-timeout", 15*time.Second, "how long the card waits for a touch")
	fs.StringVar(&opts.addr, "addr", "", "`address` of the vpcd reader, the second one is one port higher (default "+debianAddr+", with -pcscd "+pcscd.DefaultAddr+")")
	fs.BoolVar(&opts.pcscd, "pcscd", false, "run pcscd too")
	fs.StringVar(&opts.ca, "ca", "", "write root and intermediates of the attestation to this `file` (PEM)")
	verbose := fs.Bool("log", false, "print the commands that reach the card, without their data")
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	switch {
	case opts.addr != "":
	case opts.pcscd:
		opts.addr = pcscd.DefaultAddr
	default:
		opts.addr = debianAddr
	}
	if fs.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	var err error
	if opts.config.Firmware, err = virtual.ParseFirmware(*firmware); err != nil {
		return options{}, err
	}
	if opts.config.Touch, err = parseTouch(*touch); err != nil {
		return options{}, err
	}
	if *serial == 0 || *serial > math.MaxUint32 {
		return options{}, errors.New("a serial number has 32 bits and is not 0")
	}
	opts.config.Serial = uint32(*serial)
	if *verbose {
		opts.config.Observe = func(e virtual.Exchange) { printExchange(out, e) }
	}
	return opts, nil
}

func parseTouch(s string) (virtual.TouchFunc, error) {
	if s == "never" {
		return virtual.NoTouch, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return nil, fmt.Errorf("-touch is a time such as 2s, or never: %w", err)
	}
	return virtual.TouchAfter(d), nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	out := log.New(stdout, "", 0) // the card prints from a goroutine of its own
	opts, err := parseFlags(args, out, stderr)
	if err != nil {
		return err
	}
	if opts.pcscd {
		stop, runErr := pcscd.Run(ctx)
		if runErr != nil {
			return runErr
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	card, err := pcscd.New(opts.config, opts.addr)
	if err != nil {
		return err
	}
	defer card.Close()
	if opts.ca != "" {
		if err := os.WriteFile(opts.ca, card.CA().PEM(), 0o644); err != nil {
			return err
		}
	}
	if err := card.Insert(ctx); err != nil {
		return err
	}
	out.Printf("YubiKey %v with serial number %d is in the reader. Interrupt to pull it.", card.Firmware(), card.Serial())
	if err := card.Wait(ctx); err == nil {
		return errors.New("the reader is gone")
	}
	return nil
}

func printExchange(out *log.Logger, e virtual.Exchange) {
	out.Printf("%02X %02X %02X %02X  %4d bytes  -> %v  %4d bytes  %v",
		e.CLA, e.INS, e.P1, e.P2, e.DataLen, e.Status, e.AnswerLen, e.Took.Round(time.Microsecond))
}
