// Ycauth logs you in to Yandex Cloud and gives other programs valid IAM tokens. It
// renews them with a refresh token that is bound to a key (DPoP, RFC 9449), in a file
// or on a YubiKey, so a copy without the key is useless. IAM tokens are not bound: a
// copy works until it expires.
//
//	ycauth login                      log in through a browser
//	ycauth token                      print an IAM token
//	ycauth exec -- terraform plan     run a command with YC_TOKEN and IAM_TOKEN set
//	ycauth run -- ./backup --all      run a command with fresh tokens for as long as it runs
//	ycauth serve                      give other programs fresh tokens until Ctrl-C
//	ycauth status                     show the profile; no request is made
//	ycauth list                       list refresh tokens
//	ycauth revoke ID                  revoke refresh tokens
//	ycauth key init|show|attest       create and show the profile's key
//	ycauth kube-credential            credential plugin for kubectl
//	ycauth docker-credential          credential helper for docker
//	ycauth logout                     revoke the session, then forget it
//	ycauth completion bash|zsh|fish   print a completion script
//
// # Profiles
//
// Each profile has its own session, key and configuration. --profile
// or $YCAUTH_PROFILE selects one; the default is "default". They are kept in
// $YCAUTH_CONFIG_DIR, by default the directory ycauth in the user's configuration
// directory:
//
//	sessions/NAME.json   the session, with the refresh token (package filestore)
//	profiles/NAME.json   endpoints, client and the choice of the key; no secret
//	keys/NAME.pem        the key, unless it is in another file or on a YubiKey
//
// The directory can be moved. "ycauth login --keyring" seals the session with a key in
// the keyring of the operating system (package keyringstore).
//
// Any number of processes can share a profile: the token is renewed once for
// all of them.
//
// # Output
//
// Results go to stdout, as a table or, with -o json, as JSON. Prompts, progress
// and errors go to stderr. Colors are for terminals only, and $NO_COLOR turns
// them off. -v shows requests and events on stderr, without secrets.
//
// # Exit codes
//
//	0    done
//	1    failure
//	2    usage error: a wrong command, flag or argument; nothing was changed
//	3    log in again
//	4    temporary network or server error (HTTP 5xx); the same command may work later
//	5    permission denied
//	6    key error: no such file, another key, no card, wrong PIN, no touch, built without cgo
//	126  the command of "ycauth exec" or "ycauth run" could not be run
//	127  the command of "ycauth exec" or "ycauth run" was not found
//	130  interrupted: Ctrl-C, SIGTERM or SIGHUP
//	141  the program that reads the output has ended
//
// The exit code of "ycauth exec" and "ycauth run" is otherwise that of the command. A
// token that was printed is valid even if the exit code is 3: the session behind it could
// not be saved.
//
// # Signals
//
// Ctrl-C, SIGTERM and SIGHUP end the program, but not before a new refresh token that
// was requested is received and saved, because the session would be lost without it. That
// usually takes no time, and two minutes or more in the worst case. A signal that was
// ignored when the program started stays ignored.
//
// # Another IAM
//
// --endpoint or $YCAUTH_ENDPOINT is the address of a server that is authorization
// server, IAM API and Operation API at once, as that of package iamtest is.
// --auth-url, --token-url, --iam-endpoint and --operation-endpoint (in the
// environment $YCAUTH_AUTH_URL and so on) set them one by one, for another
// region for example. A login saves them in the profile. From then on only the
// flags have an effect; a variable with another value is an error, because tokens would
// be sent to a server that did not issue them.
//
// To try the program without an account, or to write tests with it:
//
//	go run ./examples/ycauth/try                                  a shell with an IAM of its own
//	go run ./examples/ycauth/try sh -c 'ycauth login && ycauth list'
package main

import "os"

func main() { os.Exit(run(realSystem())) }
