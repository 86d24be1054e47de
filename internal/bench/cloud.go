package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
)

// A cloud is an iamtest in a process of its own, so that what is measured in this
// one is the client.
type cloud struct {
	REST  string // URL
	GRPC  string // host:port
	Token string // an access token

	// input is the standard input of the process. It is held on to: a garbage
	// collection would close it, and so end the cloud.
	input io.Closer `json:"-"`
}

var clouds = map[int]cloud{} // by their number of pages

// startCloud starts the cloud with so many pages of tokens, if it does not run. It
// ends with this process, which is the one that holds its standard input.
func startCloud(pages int) (cloud, error) {
	if c, ok := clouds[pages]; ok {
		return c, nil
	}
	self, err := os.Executable()
	if err != nil {
		return cloud{}, err
	}
	cmd := exec.CommandContext(context.Background(), self, "-serve", strconv.Itoa(pages))
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return cloud{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return cloud{}, err
	}
	if err := cmd.Start(); err != nil {
		return cloud{}, err
	}
	c := cloud{input: input}
	if err := json.NewDecoder(out).Decode(&c); err != nil {
		return cloud{}, fmt.Errorf("the cloud did not start: %w", err)
	}
	clouds[pages] = c
	return c, nil
}

// serve is the cloud itself.
func serve(pages int) error {
	iam, err := iamtest.New(iamtest.Options{MaxRecords: 1})
	if err != nil {
		return err
	}
	defer iam.Close()
	face, err := iamgrpc.New(iam, iamgrpc.Options{})
	if err != nil {
		return err
	}
	defer face.Close()
	iam.Seed(pages*pageSize, nil)
	if err := iam.Inject(iamtest.EndpointList, iamtest.Slow(latency), -1); err != nil {
		return err
	}
	err = json.NewEncoder(os.Stdout).Encode(cloud{REST: iam.IAMEndpoint(), GRPC: face.Address, Token: iam.IssueAccessToken("", "")})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
