package main

import "strings"

// mutated says whether the mutation of that name is on: one of the wrong versions of this service that
// tests of the replay are about (testdata/mutations/go.txt lists them). Without the build tag
// "mutations" none ever is.
func mutated(name string) bool { return mutation != "" && mutation == name }

// pick is changed where the mutation is on, else usual.
func pick[T any](name string, usual, changed T) T {
	if mutated(name) {
		return changed
	}
	return usual
}

// reword is usual with to in the place of from where the mutation is on.
func reword(name, usual, from, to string) string {
	if mutated(name) {
		return strings.ReplaceAll(usual, from, to)
	}
	return usual
}
