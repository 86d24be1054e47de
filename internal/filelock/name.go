package filelock

import (
	"slices"
	"strings"
	"unicode"
)

// maxName leaves room for what is put around a name, within the 255 bytes that
// file systems allow.
const maxName = 64

// CheckName reports why a name is not fit to become the name of a file on every
// system; "" if it is. Names that pass are different files also where letter
// case is ignored, and cannot lead out of a directory.
func CheckName(name string) (reason string) {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxName:
		return "is longer than 64 characters"
	case strings.ContainsFunc(name, unicode.IsUpper):
		return "has upper case letters, which some file systems do not distinguish from lower case"
	case strings.ContainsFunc(name, notInName):
		return "has characters other than a-z, 0-9 and . _ - @"
	case strings.ContainsRune(".-", rune(name[0])):
		return "begins with a dot or a dash"
	case reserved(name):
		return "is the name of a device on Windows"
	}
	return ""
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("._-@", r)
}

// reserved: "Avoid using reserved names […] Also avoid these names followed
// immediately by an extension" (Naming Files, Paths, and Namespaces, Microsoft).
func reserved(name string) bool {
	stem, _, _ := strings.Cut(name, ".")
	if slices.Contains([]string{"con", "prn", "aux", "nul"}, stem) {
		return true
	}
	return len(stem) == 4 && (stem[:3] == "com" || stem[:3] == "lpt") && '0' <= stem[3] && stem[3] <= '9'
}
