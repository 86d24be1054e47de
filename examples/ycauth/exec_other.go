//go:build !unix

package main

// execute runs the command and gives its exit code: no process can turn into another one.
func (a *app) execute(path string, args, env []string) error { return a.spawn(path, args, env) }
