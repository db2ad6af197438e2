"""The configuration of the gateway under test, with as many routes and limits as a benchmark needs."""

import json

import users
from processes import free_port

# The routes of every benchmark: name, authentication, limits.
ROUTES = [
    ("open", "none", []),
    ("known", "required", []),
    ("leased", "required", ["leased"]),
    ("full", "required", ["wide"]),
    ("limited", "required", ["spent"]),
    ("denied", "required", ["spent-leased"]),
]
ADMIN_TOKEN = "a token for the bench only"
BY_USER = {"algorithm": "sliding_window", "window": "1m", "key": "user", "limit": 1_000_000_000}


class Gateway:
    """The ports and the configuration of a gateway."""

    def __init__(self, upstream, store, sessions=None, issuer=None, certificate=None):
        # `queries` is the port of front proxies.
        self.port, self.admin, self.queries = free_port(), free_port(), free_port()
        self.tls_port = free_port() if certificate else None
        # In place of a SQLite file of its own.
        self.database = None
        self.config = {
            "listeners": [{"bind": f"127.0.0.1:{self.port}"}],
            "admin": {"bind": f"127.0.0.1:{self.admin}", "token": ADMIN_TOKEN},
            "store": {"url": store, "timeout": "1s"},
            "tokens": {
                "access_ttl": "24h",
                "signing": {"algorithm": "HS256", "secret": users.SECRET},
                "trusted_issuers": [issuer] if issuer else [],
            },
            "sessions": sessions or {},
            "identity": {"builtin": {
                "registration": "open",
                "sign_in_limits": {"attempts_per_address": {"limit": 1000000, "window": "1m"}},
            }},
            "api_keys": {},
            "limits": {
                "wide": {**BY_USER, "consistency": "exact"},
                "leased": {**BY_USER, "consistency": "leased"},
                "spent": {**BY_USER, "limit": 1, "window": "1h", "consistency": "exact"},
                "spent-leased": {**BY_USER, "limit": 1, "window": "1h", "consistency": "leased"},
            },
            "upstreams": {"behind": {"servers": [f"http://127.0.0.1:{upstream}"]}},
            "routes": [],
            "forward_auth": {"bind": f"127.0.0.1:{self.queries}", "trusted_proxies": ["127.0.0.1"]},
        }
        if certificate:
            cert, key = map(str, certificate)
            tls = {"certificates": [{"cert": cert, "key": key}]}
            self.config["listeners"].append({"bind": f"127.0.0.1:{self.tls_port}", "tls": tls})
        for name, auth, limits in ROUTES:
            self.add_route(name, f"/{name}", auth, limits)

    def add_route(self, name, prefix, auth, limits=()):
        self.config["routes"].append({
            "name": name, "match": {"prefix": prefix}, "auth": auth, "limits": list(limits),
            "upstream": "behind",
        })

    def add_limit(self, name):
        self.config["limits"][name] = {**BY_USER, "consistency": "exact"}

    def write(self, folder):
        """Writes the configuration; returns the path of the file."""
        self.config["database"] = {"url": self.database or f"sqlite:{folder}/people-{self.port}.db"}
        # JSON is valid YAML. The gateway watches the folder, so no other files are written there.
        file = config_folder(folder) / f"portcullis-{self.port}.yaml"
        file.write_text(json.dumps(self.config, indent=2))
        return file


def config_folder(folder):
    """Creates the folder of the gateway's files. Logs are written elsewhere, because it watches this folder."""
    made = folder / "config"
    made.mkdir(exist_ok=True)
    return made
