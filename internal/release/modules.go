package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// sdk is the path of the root module; those of all others begin with it.
const sdk = "github.com/ycauth/ycauth-go"

// A module is one go.mod of the tree.
type module struct {
	path     string
	dir      string   // in the tree, slash-separated, "." for the root
	requires []string // modules of this tree, those it imports before go.mod says so among them
}

// internal modules hold tests and benchmarks. Nobody can require them, so they have
// no versions.
func (m module) internal() bool { return strings.HasPrefix(m.dir, "internal/") }

// tag is the name that the go command looks for in the repository.
func (m module) tag(version string) string { return path.Join(m.dir, version) }

// modules returns the modules of a tree, each after those that it requires.
func modules(root string) ([]module, error) {
	var found []module
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"testdata", "node_modules", ".git"}, d.Name()) {
			return fs.SkipDir
		}
		if d.Name() != "go.mod" {
			return nil
		}
		m, err := readModule(root, file)
		found = append(found, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range found {
		if err := found[i].addImports(root, found); err != nil {
			return nil, err
		}
	}
	return inOrder(found)
}

// addImports finds requirements that go.mod does not have yet. "go mod tidy" would
// look for versions of them, before they are tagged.
func (m *module) addImports(root string, all []module) error {
	top := filepath.Join(root, filepath.FromSlash(m.dir))
	return filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, err := os.Stat(filepath.Join(file, "go.mod"))
			if (err == nil && file != top) || d.Name() == "testdata" || d.Name() == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(file) != ".go" {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			imported := moduleOf(strings.Trim(spec.Path.Value, `"`), all)
			if imported != "" && imported != m.path && !slices.Contains(m.requires, imported) {
				m.requires = append(m.requires, imported)
			}
		}
		return nil
	})
}

// moduleOf is the module of a package: the longest path that the package's path
// begins with.
func moduleOf(pkg string, all []module) string {
	longest := ""
	for _, m := range all {
		if (pkg == m.path || strings.HasPrefix(pkg, m.path+"/")) && len(m.path) > len(longest) {
			longest = m.path
		}
	}
	return longest
}

func readModule(root, file string) (module, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return module{}, err
	}
	f, err := modfile.Parse(file, content, nil)
	if err != nil {
		return module{}, err
	}
	dir, err := filepath.Rel(root, filepath.Dir(file))
	if err != nil {
		return module{}, err
	}
	m := module{path: f.Module.Mod.Path, dir: filepath.ToSlash(dir)}
	if want := path.Join(sdk, m.dir); m.path != want {
		return module{}, fmt.Errorf("%s names the module %s, its place says %s", file, m.path, want)
	}
	for _, r := range f.Require {
		if ours(r.Mod.Path) {
			m.requires = append(m.requires, r.Mod.Path)
		}
	}
	return m, nil
}

func ours(path string) bool { return path == sdk || strings.HasPrefix(path, sdk+"/") }

func inOrder(found []module) ([]module, error) {
	var ordered []module
	done := make(map[string]bool)
	for len(ordered) < len(found) {
		before := len(ordered)
		for _, m := range found {
			if done[m.path] || slices.ContainsFunc(m.requires, func(r string) bool { return !done[r] }) {
				continue
			}
			done[m.path] = true
			ordered = append(ordered, m)
		}
		if len(ordered) == before {
			return nil, fmt.Errorf("after %v, the modules left require each other or one that is not in the tree", ordered)
		}
	}
	return ordered, nil
}

// setModVersion makes a go.mod require this version of our modules.
func setModVersion(file string, requires []string, version string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	f, err := modfile.Parse(file, content, nil)
	if err != nil {
		return err
	}
	for _, r := range requires {
		if err := f.AddRequire(r, version); err != nil {
			return err
		}
	}
	if content, err = f.Format(); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}

// setWorkVersion makes a go.work replace this version of our modules.
func setWorkVersion(file, version string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	f, err := modfile.ParseWork(file, content, nil)
	if err != nil {
		return err
	}
	for _, r := range slices.Clone(f.Replace) {
		if !ours(r.Old.Path) {
			continue
		}
		// A changed line keeps its place, an added one does not.
		tokens := r.Syntax.Token
		if i := slices.Index(tokens, r.Old.Version); i > 0 {
			tokens[i] = version
		}
	}
	return os.WriteFile(file, modfile.Format(f.Syntax), 0o644)
}
