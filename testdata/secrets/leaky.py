#!/usr/bin/env python3
"""A service that is careless with its credentials: it sends, answers and prints them in every spelling."""

import base64
import html
import json
import os
import socket
import sys
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

ENV = {name: os.environ[name] for name in ("PAYMENT", "SERVICE_TOKEN", "DB_PASSWORD", "CACHE_URL", "GO_DATABASE", "EXTRA_TOKEN")}
KEY = "-----BEGIN RSA PRIVATE KEY-----\n%s\n-----END RSA PRIVATE KEY-----" % os.environ["KEY_BODY"]


def spellings(value):
    return [
        value,
        json.dumps(value),
        urllib.parse.quote(value, safe=""),
        urllib.parse.quote_plus(value),
        html.escape(value),
        base64.b64encode(value.encode()).decode(),
        base64.b64encode(b"user:" + value.encode()).decode(),
        base64.urlsafe_b64encode(b"ab" + value.encode() + b"?>").decode(),
    ]


def ask_cache():
    url = urllib.parse.urlparse(ENV["CACHE_URL"])
    password = urllib.parse.unquote(url.password).encode()
    with socket.create_connection((url.hostname, url.port)) as s:
        s.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(password), password))
        s.recv(100)
        note = ENV["PAYMENT"].encode()
        s.sendall(b"*3\r\n$3\r\nSET\r\n$4\r\nnote\r\n$%d\r\n%s\r\n" % (len(note), note))
        s.recv(100)
        s.sendall(b"*2\r\n$3\r\nGET\r\n$4\r\nnote\r\n")
        return s.recv(1000)


def ask_partner():
    basic = base64.b64encode(b"user:" + ENV["PAYMENT"].encode()).decode()
    query = urllib.parse.urlencode({"access_token": ENV["SERVICE_TOKEN"], "note": ENV["PAYMENT"]})
    headers = {
        "Authorization": "Basic " + basic,
        "X-Api-Key": ENV["SERVICE_TOKEN"],
        "Cookie": "sid=" + ENV["DB_PASSWORD"] + "; theme=dark",
    }
    request = urllib.request.Request(os.environ["PARTNER"] + "/.well-known/jwks.json?" + query, headers=headers)
    with urllib.request.urlopen(request) as response:
        response.read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/":
            return self.answer("ok")
        ask_partner()
        ask_cache()
        seen = [value for name in ENV for value in spellings(ENV[name])]
        print(json.dumps({"seen": seen, "asked": dict(self.headers)}))
        print("Authorization: " + str(self.headers["Authorization"]) + "\nCookie: " + str(self.headers["Cookie"]))
        print("\x1b[2J\x1b]0;title\x07 drives \u009b31m the \u202e terminal\r")
        # One line in two pieces, longer than what a pipe takes at once.
        sys.stdout.write("x" * 100000 + ENV["PAYMENT"][:9])
        sys.stdout.flush()
        sys.stdout.write(ENV["PAYMENT"][9:] + "\n")
        print(KEY, file=sys.stderr, flush=True)
        print(KEY.replace("\n", "\\n"), flush=True)
        self.answer(json.dumps({"seen": seen, "key": KEY}), cookie="sid=%s; Path=/; HttpOnly" % ENV["DB_PASSWORD"])

    def answer(self, text, cookie=None):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
