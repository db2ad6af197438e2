"""A client of the gateway, over one connection."""

import http.client
import json

# A real one of 110 characters: it is part of every session.
USER_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/99.0.0.0 Safari/537.36"
)


class ApiClient:
    def __init__(self, port, address="127.0.0.1"):
        """Connects from the given loopback address."""
        self.connection = http.client.HTTPConnection("127.0.0.1", port, 60, (address, 0))

    def request(self, method, path, token=None, body=None):
        """Returns the status, and the body if it is JSON."""
        headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.connection.request(method, path, json.dumps(body) if body else None, headers)
        response = self.connection.getresponse()
        text = response.read()
        content_type = response.getheader("Content-Type") or ""
        return response.status, json.loads(text) if text and "json" in content_type else None

    def call(self, method, path, token=None, body=None):
        """Calls one of the gateway's endpoints, which must succeed; returns the data of its response."""
        status, response = self.request(method, f"/api/v1/{path}", token, body)
        if status not in (200, 201, 204):
            raise OSError(f"{method} {path} returned {status}: {response}")
        return response["data"] if response else None
