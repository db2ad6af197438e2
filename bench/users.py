"""Users with one session each, numbered as in `examples/sample`, and their tokens."""

import base64
import hashlib
import hmac
import json
import socket
import subprocess
import time

from processes import ROOT, Unavailable, missing

SECRET = "a secret for the bench only, 0123456789"
PREFIX = "portcullis:"
# The issuer of tokens that are signed with public-key algorithms.
ISSUER = {
    "issuer": "https://issuer.bench.example", "audience": "portcullis", "require_session": True,
    "algorithms": ["RS256", "ES256", "EdDSA"],
}


def sign_in(binaries, redis, first, end):
    """Creates the sessions of users `first` to `end` in Redis, through the gateway's store."""
    command = [binaries.examples / "fill", str(redis), PREFIX, str(first), str(end), "only"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Unavailable(f"no sessions in Redis: {done.stderr.strip()[:500]}")


def write_tokens(file, first, end):
    """Writes an access token of each user, one per line, as the gateway would issue it."""
    head = encoded({"typ": "at+jwt", "alg": "HS256"})
    now = int(time.time())
    with open(file, "w") as out:
        for number in range(first, end):
            message = f"{head}.{encoded(claims(number, now))}"
            signature = hmac.digest(SECRET.encode(), message.encode(), "sha256")
            out.write(f"{message}.{text(signature)}\n")
    return file


def claims(number, now):
    return {
        "iss": "portcullis", "aud": "portcullis",
        "sub": f"00000000-0000-4000-8000-{number & 0xffff_ffff_ffff:012x}",
        "sid": hashlib.sha256(number.to_bytes(8, "big")).hexdigest(),
        "jti": f"00000000-0000-4000-9000-{number:012x}",
        "iat": now, "exp": now + 86_400, "email": f"user-{number % 100_000_000:08}@example.org",
    }


def encoded(part):
    return text(json.dumps(part, separators=(",", ":")).encode())


def text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def write_other_users(redis, file):
    """Writes the same sessions for the other subjects, which read them from `bench:session:ID`."""
    with socket.create_connection(("127.0.0.1", redis), 10) as connection:
        replies = connection.makefile("rb")
        for token in open(file):
            payload = token.split(".")[1]
            decoded = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            words = [b"SET", f"bench:session:{decoded['sid']}".encode(), decoded["sub"].encode(), b"EX", b"86400"]
            lines = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
            connection.sendall(b"*%d\r\n" % len(words) + lines)
            if not replies.readline().startswith(b"+OK"):
                raise Unavailable("Redis rejects the sessions of the other subjects")


class Issuer:
    """Signs the tokens of the same users with public-key algorithms, in Node."""

    def __init__(self, folder):
        absent = missing("node")
        if absent:
            raise Unavailable(absent[0])
        self.folder = folder
        self.node("keys")
        self.settings = {**ISSUER, "jwks_file": str(folder / "jwks.json")}

    def sign(self, tokens):
        """Writes one file of tokens for each algorithm."""
        self.node("sign", tokens, ISSUER["issuer"])
        return {name: self.folder / f"tokens-{name}" for name in ISSUER["algorithms"]}

    def node(self, *words):
        command = ["node", ROOT / "bench" / "node" / "issuer.js", words[0], self.folder, *words[1:]]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"the token issuer failed: {done.stderr.strip()[-500:]}")
