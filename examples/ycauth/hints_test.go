package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestHintsNameTheProfile: commandFor alone spells out a command for the user to run. The
// help of the program is not about a profile.
func TestHintsNameTheProfile(t *testing.T) {
	command := regexp.MustCompile(`\bycauth [a-z]`)
	fset := token.NewFileSet()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, entry.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files++
		ast.Inspect(f, func(n ast.Node) bool {
			if field, ok := n.(*ast.KeyValueExpr); ok {
				name, _ := field.Key.(*ast.Ident)
				return name == nil || name.Name != "Long" && name.Name != "Example" // of a cobra.Command
			}
			if spec, ok := n.(*ast.ValueSpec); ok && spec.Names[0].Name == "exitTable" {
				return false // a topic of help
			}
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			if command.MatchString(text) {
				t.Errorf("%s: %q names a command without the profile: use commandFor", fset.Position(lit.Pos()), text)
			}
			return true
		})
	}
	if files < 20 {
		t.Errorf("only %d files were read", files)
	}
}

func TestCommandFor(t *testing.T) {
	for _, test := range []struct{ profile, command, want string }{
		{defaultProfile, "login", "ycauth login"},
		{defaultProfile, "exec -- terraform plan", "ycauth exec -- terraform plan"},
		{"work", "logout --local", "ycauth logout --local --profile work"},
		{"work", "exec -- terraform plan", "ycauth exec --profile work -- terraform plan"},
	} {
		if got := (&app{profileName: test.profile}).commandFor(test.command); got != test.want {
			t.Errorf("commandFor(%q) of profile %s is %q, want %q", test.command, test.profile, got, test.want)
		}
	}
}
