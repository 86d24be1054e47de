package main

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPictureOfTheHouse holds docs/architecture.svg against the imports: it names
// every package that others can import, its arrows are imports, and no import is
// missing unless other arrows lead to the same place.
func TestPictureOfTheHouse(t *testing.T) {
	svg := read(t, filepath.Join(tree, "docs", "architecture.svg"))
	drawn := make(map[string][]string)
	for _, m := range regexp.MustCompile(`data-imports="(\S+) (\S+)"`).FindAllStringSubmatch(svg, -1) {
		drawn[m[1]] = append(drawn[m[1]], m[2])
	}
	if len(drawn) == 0 {
		t.Fatal("docs/architecture.svg has no arrows")
	}
	imports := publicImports(t)
	for from, tos := range drawn {
		for _, to := range tos {
			if !slices.Contains(imports[from], to) {
				t.Errorf("there is an arrow from %s to %s, which it does not import", from, to)
			}
		}
	}
	for from, tos := range imports {
		if !strings.Contains(svg, ">"+from+"<") {
			t.Errorf("%s is not in docs/architecture.svg", from)
		}
		for _, to := range tos {
			if !leads(drawn, from, to) {
				t.Errorf("%s imports %s, and no arrow leads there", from, to)
			}
		}
	}
}

// publicImports lists what packages of this repository import of each other, by
// their paths without the SDK's. Programs and internal packages are left out.
func publicImports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := command(t.Context(), tree, nil, "go", "list", "-f", "{{.Name}} {{.ImportPath}} {{join .Imports \" \"}}", "work")
	if err != nil {
		t.Fatal(err)
	}
	public := func(path string) (string, bool) {
		name, ok := strings.CutPrefix(path, sdk+"/")
		return name, ok && !slices.Contains(strings.Split(name, "/"), "internal")
	}
	imports := make(map[string][]string)
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		from, ok := public(words[1])
		if !ok || words[0] == "main" {
			continue
		}
		imports[from] = nil
		for _, path := range words[2:] {
			if to, ok := public(path); ok {
				imports[from] = append(imports[from], to)
			}
		}
	}
	return imports
}

func leads(arrows map[string][]string, from, to string) bool {
	return slices.ContainsFunc(arrows[from], func(next string) bool { return next == to || leads(arrows, next, to) })
}
