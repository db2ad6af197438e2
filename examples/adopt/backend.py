#!/usr/bin/env python3
"""A small backend with a login of its own, as it was before Portcullis came.

    python3 backend.py [PORT]

POST /login    {"email", "password"} -> 200 {"user": {"id", "email", "roles"}}, or 401
GET  /orders   the orders of the user whom the gateway names
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USERS = {"ann@example.com": {"id": 7, "password": "ann-knows-this", "roles": ["member"]}}
ORDERS = {"7": ["a teapot", "two cups"]}


class Backend(BaseHTTPRequestHandler):
    def do_POST(self):
        if self.path != "/login":
            return self.respond(404, {"error": "not found"})
        length = int(self.headers.get("Content-Length", 0))
        asked = json.loads(self.rfile.read(length))
        user = USERS.get(asked.get("email"))
        if user is None or user["password"] != asked.get("password"):
            return self.respond(401, {"error": "wrong email or password"})
        who = {"id": user["id"], "email": asked["email"], "roles": user["roles"]}
        self.respond(200, {"user": who})

    def do_GET(self):
        if self.path != "/orders":
            return self.respond(404, {"error": "not found"})
        # Only the gateway can reach this backend, and it lets no client send this header.
        user = self.headers.get("X-User-Id")
        self.respond(200, {"user": user, "orders": ORDERS.get(user, [])})

    def respond(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    ThreadingHTTPServer(("127.0.0.1", port), Backend).serve_forever()
