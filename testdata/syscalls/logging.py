#!/usr/bin/env python3
"""A service that appends to a log, itself or in a child, and asks its cache; it says what came of it."""

import errno
import os
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer

HOST, PORT = os.environ["CACHE"].rsplit(":", 1)
LINE = b"123456789\n"


def append(times):
    """What each write of so many lines came to."""
    said = []
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(times):
        left = LINE
        while left:
            try:
                wrote = os.write(log, left)
            except OSError as error:
                said.append(errno.errorcode[error.errno])
                break
            said.append(str(wrote))
            left = left[wrote:]
    os.close(log)
    return " ".join(said)


def child():
    pid = os.fork()
    if pid == 0:
        append(1)
        os._exit(0)
    return f"child {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"


def ask():
    with socket.create_connection((HOST, int(PORT))) as cache:
        try:
            cache.sendall(b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n")
        except OSError as error:
            return errno.errorcode[error.errno]
        return f"got {len(cache.recv(100))}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        paths = {"/append": lambda: append(4), "/child": child, "/ask": ask}
        body = paths.get(self.path, lambda: "ok")().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
