"""Holds many connections open, and serves WebSockets that stay open."""

import asyncio
import base64
import hashlib
import os
import socket
import sys

UPGRADE = (
    b"GET /open HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
)
REQUEST = b"GET /open HTTP/1.1\r\nHost: localhost\r\n\r\n"


def idle(port):
    """Opens a connection, makes one request on it, and leaves it open."""
    connection = socket.create_connection(("127.0.0.1", port), 30)
    connection.sendall(REQUEST)
    response = b""
    while not response.endswith(b"x" * 1024):
        response += receive(connection, response)
    return connection


def web_socket(port):
    """Opens a WebSocket and leaves it open."""
    connection = socket.create_connection(("127.0.0.1", port), 30)
    connection.sendall(UPGRADE % base64.b64encode(os.urandom(16)))
    response = b""
    while b"\r\n\r\n" not in response:
        response += receive(connection, response)
    if not response.startswith(b"HTTP/1.1 101 "):
        raise OSError(f"no WebSocket: {response[:200]!r}")
    return connection


def receive(connection, so_far):
    piece = connection.recv(65536)
    if not piece:
        raise OSError(f"the connection was closed after {so_far[:200]!r}")
    return piece


async def accept(reader, writer):
    """Accepts the upgrade, then sends nothing until the client closes the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    named = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    key = named.split(b": ", 1)[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    proof = base64.b64encode(hashlib.sha1(key).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % proof
    )
    await reader.read()
    writer.close()


async def serve(port):
    server = await asyncio.start_server(accept, "127.0.0.1", port, backlog=4096, limit=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
