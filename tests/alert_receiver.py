"""A receiver of alerts over HTTP: it checks signatures, as receivers of Standard Webhooks do, and may fail first."""

import base64
import contextlib
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "whsec_" + base64.b64encode(b"a secret of 24 bytes....").decode()


@dataclass
class Receiver:
    address: str = ""
    fails: int = 0
    """Requests that are answered with `status` before others are taken."""
    status: int = 503
    received: list[dict[str, Any]] = field(default_factory=list)
    """Bodies that were taken, in order."""
    ids: list[str] = field(default_factory=list)
    """Of every request."""
    signed: list[bool] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def texts(self, kind: str) -> list[str]:
        return [one["data"]["text"] for one in self.received if one["type"] == f"alert.{kind}"]


def is_signed(headers: Any, body: bytes) -> bool:
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return bool(headers["webhook-signature"] == wanted)


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with receiver.lock:
                receiver.ids.append(self.headers.get("webhook-id", ""))
                receiver.paths.append(self.path)
                fails = receiver.fails > 0
                receiver.fails -= fails
                if not fails:
                    receiver.signed.append("webhook-id" in self.headers and is_signed(self.headers, body))
                    receiver.received.append(json.loads(body))
            self.send_response(receiver.status if fails else 204)
            if fails and 300 <= receiver.status < 400:
                self.send_header("location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.address = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
