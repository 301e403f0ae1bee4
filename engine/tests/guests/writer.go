// Appends a byte to the file that it is given and says "ok" or what the error is.
package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

func main() {
	file, err := os.OpenFile(os.Args[1], os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, err = file.Write([]byte("x"))
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		fmt.Println("full")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println("ok")
	}
}
