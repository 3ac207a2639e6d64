"""What the conformance tests need, below the benchmarks' cache folder: the official suite with the Node it runs on, and
the MCP SDK's sources, which hold a server with every feature and a client that passes the suite.

    python -m tests.conformance.install
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import servers
from benchmarks.servers import Server, ServerFailed
from tests import node

_SUITE = Server("conformance", "@modelcontextprotocol/conformance@0.2.0-alpha.12", "dist/index.js", also=node.ALSO)
_SDK = "mcp-2.3.0"
_INSTALL_TIMEOUT_S = 600

SUITE = servers.home_of(_SUITE) / "node_modules" / "@modelcontextprotocol" / "conformance"
SDK = servers.cache_folder() / "sources" / _SDK
EVERYTHING_SERVER = SDK / "examples" / "servers" / "everything-server"
SDK_CLIENT = SDK / ".github" / "actions" / "conformance" / "client.py"


def is_installed() -> bool:
    return servers.is_installed(_SUITE) and SDK.is_dir()


def suite_command() -> list[str]:
    """The program of the suite, which does not start on Node 20."""
    return [node.node_of(servers.home_of(_SUITE)), str(SUITE / _SUITE.program)]


def install() -> None:
    servers.install(_SUITE)
    if not SDK.is_dir():
        _unpack_sdk()


def _unpack_sdk() -> None:
    SDK.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SDK.parent) as folder:
        requirement = _SDK.replace("-", "==")
        # Only this package from source: with `:all:`, pip would also compile what it builds the package's metadata with.
        only = ("--no-deps", "--no-binary", "mcp", requirement)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, *only],
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
        )
        if done.returncode:
            raise ServerFailed(f"pip download {requirement} exited with {done.returncode}: {done.stderr[-2000:]}")
        shutil.unpack_archive(next(Path(folder).glob("*.tar.gz")), folder, filter="data")
        (Path(folder) / _SDK).rename(SDK)


if __name__ == "__main__":
    started = time.monotonic()
    install()
    print(f"{'conformance':20} {time.monotonic() - started:6.1f} s  {_SUITE.package} and the sources of {_SDK}")
