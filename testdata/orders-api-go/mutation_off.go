//go:build !mutations

package main

// mutation is the wrong version that is on: never one in this build.
const mutation = ""
