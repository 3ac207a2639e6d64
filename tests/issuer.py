"""An authorization server as far as a protected resource sees it: metadata, a key set, and tokens. It speaks HTTP on a
port of this machine, in a thread of its own, and can be told to behave badly."""

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_RSA = {name: rsa.generate_private_key(65537, 2048) for name in ("first", "second")}


@dataclass
class SigningKey:
    kid: str | None
    algorithm: str
    private: Private

    def published(self) -> dict[str, Any]:
        """As in a key set."""
        made: Any = get_default_algorithms()[self.algorithm]
        found = json.loads(made.to_jwk(self.private.public_key()))
        found.pop("key_ops", None)
        return {**found, "use": "sig", "alg": self.algorithm, **({} if self.kid is None else {"kid": self.kid})}


def rsa_key(kid: str | None = "rsa-1", algorithm: str = "RS256", which: str = "first") -> SigningKey:
    return SigningKey(kid, algorithm, _RSA[which])


def ec_key(kid: str = "ec-1") -> SigningKey:
    return SigningKey(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


def ed_key(kid: str = "ed-1") -> SigningKey:
    return SigningKey(kid, "EdDSA", ed25519.Ed25519PrivateKey.generate())


@dataclass
class Issuer:
    url: str
    keys: list[SigningKey] = field(default_factory=lambda: [rsa_key()])
    documents: dict[str, Callable[["Exchange"], None]] = field(default_factory=dict)
    """Path → what answers there instead."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Laid over its metadata."""
    seen: list[str] = field(default_factory=list)
    """The paths that were asked for."""

    def count(self, path: str = "/jwks") -> int:
        return list(self.seen).count(path)

    def token(
        self,
        audience: str | list[str] | None = None,
        key: SigningKey | None = None,
        headers: dict[str, Any] | None = None,
        without: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        """A signed token. Of `claims`, what `without` names is left out."""
        key, now = key or self.keys[0], time.time()
        content = {"iss": self.url, "sub": "ada", "iat": now, "exp": now + 600, "aud": audience, **claims}
        given = {name: value for name, value in content.items() if name not in without}
        kid = {} if key.kid is None else {"kid": key.kid}
        return jwt.encode(given, key.private, key.algorithm, headers={"typ": "at+jwt", **kid, **(headers or {})})


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token as an attacker puts it together."""
    return ".".join(_base64(part) for part in (json.dumps(header).encode(), json.dumps(claims).encode(), signature))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    protocol_version = "HTTP/1.1"
    issuer: Issuer

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, body: Any) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        issuer = self.issuer
        issuer.seen.append(self.path)
        if (other := issuer.documents.get(self.path)) is not None:
            other(self)
            return
        match self.path:
            case "/.well-known/oauth-authorization-server":
                self.reply(200, {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks", **issuer.metadata})
            case "/jwks":
                self.reply(200, {"keys": [key.published() for key in issuer.keys]})
            case _:
                self.reply(404, {})


@contextmanager
def issuing() -> Iterator[Issuer]:
    handler = type("Handler", (Exchange,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    issuer = Issuer(f"http://127.0.0.1:{server.server_address[1]}")
    handler.issuer = issuer  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def new_kid() -> str:
    return f"kid-{secrets.token_hex(8)}"
