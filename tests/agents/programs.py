"""The agents that tests drive, below the benchmarks' cache folder: their programs as npm has them, without what starts or
updates them.

    python -m tests.agents.programs
"""

import os
import platform
import shutil
import time
from pathlib import Path

import pytest

from benchmarks import servers
from benchmarks.servers import Server
from tests import node
from tests.agents.wall import Wall
from tests.conftest import IN_CI

_PLATFORMS = {
    ("Linux", "x86_64"): ("linux-x64", "x86_64-unknown-linux-musl"),
    ("Linux", "aarch64"): ("linux-arm64", "aarch64-unknown-linux-musl"),
    ("Darwin", "x86_64"): ("darwin-x64", "x86_64-apple-darwin"),
    ("Darwin", "arm64"): ("darwin-arm64", "aarch64-apple-darwin"),
}
_PLATFORM, _TRIPLE = _PLATFORMS.get((platform.system(), platform.machine()), ("", ""))
_BASELINE = "-baseline" if _PLATFORM.endswith("-x64") else ""  # for processors without AVX2 too
_NATIVE = {
    "claude": Server("agent-claude", f"@anthropic-ai/claude-code-{_PLATFORM}@2.1.332", "claude"),
    "codex": Server("agent-codex", f"@openai/codex@0.171.0-{_PLATFORM}", f"vendor/{_TRIPLE}/bin/codex"),
    "opencode": Server("agent-opencode", f"opencode-{_PLATFORM}{_BASELINE}@1.18.33", "bin/opencode"),
}
_GEMINI = Server("agent-gemini", "@google/gemini-cli@0.61.0", "bundle/gemini.js", also=node.ALSO)
PROGRAMS = {**(_NATIVE if _PLATFORM else {}), "gemini": _GEMINI}
_QUIET = {
    **{"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
    **{"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1"},
    "NPM_CONFIG_REGISTRY": "http://127.0.0.1:9",  # from which opencode fetches the types of its plugins
}
"""What keeps the programs from asking the internet for updates, models and the like."""


def command_of(name: str) -> list[str]:
    """How an agent is started: as installed here, else as found on the PATH. Without either the test skips, and fails in
    CI."""
    server = PROGRAMS.get(name)
    if server is not None and servers.is_installed(server):
        home = servers.home_of(server)
        program = str(home / "node_modules" / server.package.rpartition("@")[0] / server.program)
        return [node.node_of(home), program] if program.endswith(".js") else [program]
    if (found := shutil.which(name)) is None:
        (pytest.fail if IN_CI else pytest.skip)(f"no {name}; run `python -m tests.agents.programs`")
    return [found]


def environment_of(home: Path, outside: Wall, **more: str) -> dict[str, str]:
    """Of an agent that has nothing of the user's but the PATH, and a wall in place of the internet."""
    ways = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    proxies = {**dict.fromkeys(ways, outside.address), **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")}
    return {"PATH": os.environ["PATH"], "HOME": str(home), **_QUIET, **proxies, **more}


if __name__ == "__main__":
    for server in PROGRAMS.values():
        started = time.monotonic()
        servers.install(server)
        print(f"{server.name:20} {time.monotonic() - started:6.1f} s  {server.package}")
