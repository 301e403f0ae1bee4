"""Appends a byte to the file that it is given and says "ok" or what the error is."""

import errno
import os
import sys

fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
try:
    os.write(fd, b"x")
    print("ok")
except OSError as error:
    print("full" if error.errno == errno.ENOSPC else error)
