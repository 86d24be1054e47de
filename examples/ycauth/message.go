package main

import "strings"

// packageNames begin the texts of our packages' errors, and tell the user nothing.
var packageNames = []string{
	"refreshtoken: List: ", "refreshtoken: Revoke: ", "refreshtoken: Operation: ", // with the name of a method
	"oauth: ", "refreshtoken: ", "filestore: ", "keyringstore: ", "dpop: ", "piv: ",
}

// flagNames are what users of this program know the names of our packages by. A text that
// names a command is in message.
var flagNames = strings.NewReplacer(
	"check ClientID, ClientSecret and Provider.AuthMethod", "check --client-id; this program cannot log in as a client that has a secret",
	"set Provider.AuthMethod to AuthClientSecretBasicPlain or AuthClientSecretPost", "this program cannot log in as a client that has a secret",
	"set Provider.AuthMethod to AuthClientSecretBasicPlain", "this program cannot log in as a client that has a secret",
	"Config.Provider.TokenURL", "--token-url", "Provider.TokenURL", "--token-url",
	"Config.Provider.AuthURL", "--auth-url", "Provider.AuthURL", "--auth-url",
	"Config.ClientID", "--client-id",
	"ListOptions.PageSize", "--page-size",
	"ListOptions.SubjectID", "--subject-id", "RevokeFilter.SubjectID", "--subject-id",
	"RevokeFilter.ClientInstanceInfo", "--client-instance-info", "Filter.ClientInstanceInfo", "--client-instance-info",
	"RevokeFilter.ClientID", "--client-id", "Filter.ClientID", "--client-id",
	"Filter.ProtectionLevels", "--protection-level",
	"RevokeEachOptions.Concurrency", "--concurrency",
	"WithEndpoint", "--iam-endpoint", "WithOperationEndpoint", "--operation-endpoint",
	"ByID is", "the ID is", "ByID has", "the ID has", "ByToken is", "the refresh token is", "ByToken holds", "the refresh token holds", "ByToken has", "the refresh token has",
	", so the Update was not started", ", so nothing was begun",
	"; see the package documentation for the features of each build and firmware", "", // the cause is beside it
	"overwriting destroys", "--overwrite destroys",
	"or keep sessions in files without a seal", "or log in without --keyring", "keep sessions in files without a seal", "log in without --keyring",
	", or set a longer Options.Timeout", ", and try again", "set Options.LockDir", "set $HOME",
	"pass an absolute path", "set YCAUTH_CONFIG_DIR",
)

// message is the error's text for people: without the names of packages, with flags
// in the place of Go's names, and in one line.
func (a *app) message(err error) string {
	text := ": " + strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	text = strings.ReplaceAll(text, "; ", "; : ") // errors that were joined begin with a package as well
	for _, name := range packageNames {
		text = strings.ReplaceAll(text, ": "+name, ": ")
		text = strings.ReplaceAll(text, "("+name, "(")
	}
	text = strings.ReplaceAll(text, "; : ", "; ")
	text = flagNames.Replace(strings.TrimPrefix(text, ": "))
	return line(strings.ReplaceAll(text, "call Store.Discard", linef("run %q", a.commandFor("logout --local"))))
}
