"""A proxy that leads nowhere, and remembers what programs wanted from outside of this machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Wall:
    address: str = ""
    asked: list[str] = field(default_factory=list)
    """Hosts, or addresses where the request was not encrypted."""


@contextmanager
def wall() -> Iterator[Wall]:
    outside = Wall()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def refuse(self) -> None:
            outside.asked.append(self.path)
            self.send_error(403)

        do_CONNECT = do_GET = do_POST = do_HEAD = refuse

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    outside.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield outside
    finally:
        server.shutdown()
        server.server_close()
