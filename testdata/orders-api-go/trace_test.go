package main

import (
	"context"
	"strings"
	"testing"
)

func TestACallersTraceGoesOnAndNonsenseStartsANewOne(t *testing.T) {
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	const header = "00-" + id + "-00f067aa0ba902b7-01"
	if got := traceID(header); got != id {
		t.Errorf("%s", got)
	}
	zero := "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01"
	for _, nonsense := range []string{"", "00", "00-xyz-1-1", strings.ToUpper(header), header[:40], zero} {
		if got := traceID(nonsense); got == id || len(got) != 32 || strings.Trim(got, "0") == "" {
			t.Errorf("%q: %s", nonsense, got)
		}
	}
	ctx := withTrace(context.Background(), header)
	one, two := span(ctx), span(ctx)
	if one == two || traceID(one) != id || !validTraceparent.MatchString(two) {
		t.Errorf("%s, %s", one, two)
	}
}
