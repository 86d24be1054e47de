//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
)

func TestRun(t *testing.T) {
	if os.Getenv("CI") != "true" {
		stop, err := pcscd.Run(t.Context())
		if errors.Is(err, pcscd.ErrNotInstalled) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	ctx, cancel := context.WithCancel(t.Context())
	output, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"-pcscd", "-firmware", "5.4", "-serial", "4711", "-touch", "never", "-ca", ca, "-log"}, stdout, io.Discard)
		stdout.Close()
		ended <- err
	}()
	line := make([]byte, 200)
	n, err := output.Read(line)
	if err != nil || !strings.HasPrefix(string(line[:n]), "YubiKey 5.4.3 with serial number 4711 is in the reader.") {
		t.Errorf("printed %q, %v", line[:n], err)
	}
	cancel()
	rest, err := io.ReadAll(output)
	if err != nil || len(rest) > 0 {
		t.Errorf("printed %q after that, %v", rest, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if root, err := x509.ParseCertificate(block.Bytes); err != nil || root.CheckSignatureFrom(root) != nil {
		t.Errorf("root %v, %v", root, err)
	}
}

// TestReader plays the reader itself: the card answers, its commands are printed, and its end is noticed.
func TestReader(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var stdout bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- run(t.Context(), []string{"-addr", listener.Addr().String(), "-log"}, &stdout, io.Discard)
	}()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	exchange := func(message string, want string) {
		t.Helper()
		if _, err := conn.Write([]byte(message)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
			t.Fatalf("answer %x, %v; want %x", got, err, want)
		}
	}
	exchange("\x00\x01\x04", "\x00\x17\x3b\xfd")
	if _, err := io.ReadFull(conn, make([]byte, 0x15)); err != nil {
		t.Fatal(err)
	}
	exchange("\x00\x05\x00\xfd\x00\x00\x00", "\x00\x02\x6d\x00")
	conn.Close()
	if err := <-ended; err == nil || err.Error() != "the reader is gone" {
		t.Errorf("run() = %v", err)
	}
	if !strings.Contains(stdout.String(), "00 FD 00 00     0 bytes  -> 6D00     0 bytes") {
		t.Errorf("printed %q", stdout.String())
	}
}

func TestMistakes(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"-firmware", "9"}, "firmware"},
		{[]string{"-firmware", "3.1"}, "older than 4.3.0"},
		{[]string{"-touch", "soon"}, "-touch is a time"},
		{[]string{"-serial", "0"}, "serial number"},
		{[]string{"-serial", "4294967296"}, "serial number"},
		{[]string{"now"}, "unexpected argument"},
		{[]string{"-addr", "127.0.0.1:1"}, "no virtual reader"},
		{[]string{"-ca", "/nonexistent/ca.pem"}, "ca.pem"},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			if err := run(t.Context(), test.args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("run() = %v, want %q", err, test.want)
			}
		})
	}
	if err := run(t.Context(), []string{"-h"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("run(-h) = %v", err)
	}
}
