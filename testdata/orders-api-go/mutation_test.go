package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestTheListNamesExactlyWhatTheSourcesKnow(t *testing.T) {
	list, err := os.ReadFile("../mutations/go.txt")
	if err != nil {
		t.Fatal(err)
	}
	var listed, known []string
	for line := range strings.Lines(string(list)) {
		if name, _, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
			listed = append(listed, name)
		}
	}
	point := regexp.MustCompile(`(?:mutated|pick(?:\[\w+\])?|reword)\(\s*"([a-z-]+)"`)
	sources, _ := filepath.Glob("*.go")
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range point.FindAllStringSubmatch(string(text), -1) {
			known = append(known, found[1])
		}
	}
	slices.Sort(listed)
	slices.Sort(known)
	known = slices.Compact(known)
	if !slices.Equal(listed, known) {
		t.Errorf("listed %v, known %v", listed, known)
	}
}
