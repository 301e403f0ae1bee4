//go:build mutations

package main

import "os"

// mutation is the wrong version that is on.
var mutation = os.Getenv("ORDERS_MUTATION")
