"""`POST /run/NAME` runs the case of that name: 200 and `ok`, or 500 and why it failed."""

import os
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kafka_cases
import mysql_cases
import redis_cases

CASES = {
    name[5:]: case
    for module in (mysql_cases, redis_cases, kafka_cases)
    for name, case in vars(module).items()
    if name.startswith("case_")
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, "ok")

    def do_POST(self):
        try:
            CASES[self.path.rsplit("/", 1)[-1]]()
            self.answer(200, "ok")
        except BaseException as failed:
            own = [f for f in traceback.extract_tb(failed.__traceback__) if f.filename.endswith("_cases.py")]
            at = f"{own[-1].name}:{own[-1].lineno} `{own[-1].line}`" if own else "?"
            self.answer(500, f"{type(failed).__name__}: {failed} at {at}")

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
