package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/internal/durable"
)

// tokenFile is where "ycauth token --file" writes.
type tokenFile struct {
	path  string
	watch bool
}

// watchEvery is how often --watch looks for another token, which costs no request while
// there is none.
const watchEvery = 5 * time.Second

// writeTokens writes a token into the file, and with --watch each one after it.
func (c *connection) writeTokens(ctx context.Context, file tokenFile, fresh freshFlags) error {
	defer c.close()
	if err := checkTokenFile(file.path); err != nil {
		return err
	}
	tok, err := c.freshToken(ctx, fresh)
	if err != nil {
		return err
	}
	if err := c.writeToken(file.path, tok); err != nil || !file.watch {
		return err
	}
	source := &announcedSource{c: c}
	written, failed := tok.AccessToken, false
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done(): // the way to end it
			return nil
		case <-tick.C:
		}
		tok, err := source.TokenContext(ctx)
		if err != nil || tok.AccessToken == written {
			continue // the source has told the user
		}
		if err := c.writeToken(file.path, tok); err != nil {
			if !failed {
				c.a.warn("%s; the file has the former token, and this is tried again", err)
			}
			failed = true
			continue
		}
		written, failed = tok.AccessToken, false
	}
}

// checkTokenFile rejects what must not be replaced by a file: a device, a pipe, and a symbolic
// link, such as /dev/stdout.
func checkTokenFile(path string) error {
	fi, err := os.Lstat(path)
	if err == nil && !fi.Mode().IsRegular() {
		return usagef("--file %s: this is not a regular file, and is not replaced. Give the path of a regular file or of one that does not exist", path)
	}
	return nil // writing reports every other error
}

// writeToken replaces the file at once, for its owner alone.
func (c *connection) writeToken(path string, tok *oauth2.Token) error {
	content := []byte(tok.AccessToken)
	if c.a.output == outputJSON {
		var err error
		if content, err = json.Marshal(newTokenJSON(tok)); err != nil {
			return err
		}
	}
	if err := checkTokenFile(path); err != nil {
		return err
	}
	if err := durable.Replace(path, content, 0o600); err != nil {
		return fmt.Errorf("writing the token: %w", err)
	}
	return nil
}
