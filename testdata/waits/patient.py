#!/usr/bin/env python3
"""A service that asks its cache once a request. On /watching it takes the time, and complains;
on /syncing it has a file written out of which nothing is left to write; on /hurrying it works against a timeout."""

import os
import signal
import socket
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

HOST, PORT = os.environ["CACHE"].rsplit(":", 1)


def ask():
    with socket.create_connection((HOST, int(PORT))) as cache:
        cache.sendall(b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n")
        return cache.recv(100)


def hurry():
    """Works for 1.2 milliseconds; a child that loses patience after a tenth of one asks the cache."""
    with socket.create_connection((HOST, int(PORT))) as cache:
        child = os.fork()
        if child == 0:
            time.sleep(0.0001)
            cache.sendall(b"*2\r\n$3\r\nGET\r\n$4\r\nlate\r\n")
            time.sleep(60)
        until = time.process_time() + 0.0012
        while time.process_time() < until:
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        began = time.monotonic()
        if self.path == "/syncing":
            file = os.open("/etc/passwd", os.O_RDONLY)
            os.fsync(file)
            os.close(file)
        elif self.path == "/hurrying":
            hurry()
        elif self.path != "/":
            ask()
        late = self.path == "/watching" and time.monotonic() - began > 1
        body = b"late" if late else b"ok"
        self.send_response(503 if late else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
