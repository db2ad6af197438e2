#!/usr/bin/env python3
"""A small backend with a login endpoint of its own, unchanged by Portcullis.

    python3 backend.py [PORT]

POST /login    {"email", "password"} -> 200 {"user": {"id", "email", "roles"}}, or 401
GET  /orders   the orders of the user in X-User-Id, which the gateway sets
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
        credentials = json.loads(self.rfile.read(length))
        user = USERS.get(credentials.get("email"))
        if user is None or user["password"] != credentials.get("password"):
            return self.respond(401, {"error": "wrong email or password"})
        identity = {"id": user["id"], "email": credentials["email"], "roles": user["roles"]}
        self.respond(200, {"user": identity})

    def do_GET(self):
        if self.path != "/orders":
            return self.respond(404, {"error": "not found"})
        # Only the gateway can reach this backend, and it removes this header from client requests.
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
