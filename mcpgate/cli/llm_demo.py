"""`mcpgate demo llm`: the second face without a key or a network. Two clients, a provider that fails, a budget that
refuses, an answer from the cache, and what the ledger says afterwards. Leaves no processes and no files."""

import contextlib
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mcpgate.cli import console
from mcpgate.errors import Unavailable

if TYPE_CHECKING:
    import httpx2

_PRICE = {"input_usd_per_mtok": 3, "output_usd_per_mtok": 15}
_APP, _INTERN, _ADMIN = "mg-the-app-of-the-demo", "mg-the-intern-of-the-demo", "mg-the-admin-of-the-demo"
CONFIG: dict[str, Any] = {
    "mcpServers": {},
    "llm": {
        "providers": {"onprem": {"type": "echo", "echo": {"fail": 503}}, "cloud": {"type": "echo"}},
        "models": {"fast": {"targets": [{"target": "onprem/llama"}, {"target": "cloud/large"}]}},
        "prices": {"*/*": _PRICE},
    },
    "governance": {
        "keys": {
            "app": {"secret": _APP, "grants": {"models": ["fast"]}},
            "intern": {"secret": _INTERN, "grants": {"models": ["*"]}, "budget": {"limit_usd": 0.01, "period": "1d"}},
            "admin": {"secret": _ADMIN, "grants": {"admin": True}},
        }
    },
}
_START_S = 60.0


def show(folder: Path) -> None:
    """Run the demo with its files in a folder. Raises Unavailable if the gateway does not start."""
    import httpx2  # 0.2 s, which only this command pays

    with _gateway(folder) as address, httpx2.Client(base_url=address, timeout=30) as http:
        print(console.styled("Configuration", "bold"))
        print(textwrap.indent(yaml.safe_dump({"llm": CONFIG["llm"]}, sort_keys=False), "  "))
        _chat(http)
        _messages(http)
        _refusal(http)
        _cached(http)
        _ledger(http)


def _chat(http: "httpx2.Client") -> None:
    print(console.styled("1. An OpenAI client asks for `fast`; onprem fails, so cloud answers", "bold"))
    ask = {"model": "fast", "messages": [{"role": "user", "content": "Say this back to me."}], "max_tokens": 50}
    answer = http.post("/v1/chat/completions", json=ask, headers={"authorization": f"Bearer {_APP}"})
    print(f"  POST /v1/chat/completions → {answer.status_code} {answer.json()['choices'][0]['message']['content']!r}")
    for name in ("x-mcpgate-provider", "x-mcpgate-model", "x-mcpgate-attempts", "x-mcpgate-cost-usd"):
        print(f"  {name}: {answer.headers[name]}")


def _messages(http: "httpx2.Client") -> None:
    print(console.styled("\n2. An Anthropic client streams from the same alias", "bold"))
    ask = {
        "model": "fast",
        "max_tokens": 50,
        "stream": True,
        "messages": [{"role": "user", "content": "Word by word."}],
    }
    with http.stream("POST", "/v1/messages", json=ask, headers={"x-api-key": _APP}) as answer:
        for line in answer.iter_lines():
            if line.startswith(("event: content_block_delta", ": x-mcpgate-cost")):
                print(f"  {line}")


def _refusal(http: "httpx2.Client") -> None:
    print(console.styled("\n3. The intern's key has $0.01 a day, and asks for an answer of 100,000 tokens", "bold"))
    ask = {"model": "fast", "messages": [{"role": "user", "content": "Write a book."}], "max_tokens": 100_000}
    answer = http.post("/v1/chat/completions", json=ask, headers={"authorization": f"Bearer {_INTERN}"})
    error = answer.json()["error"]
    print(
        textwrap.fill(
            f"{answer.status_code} {error['code']}: {error['message']}", 80, initial_indent="  ", subsequent_indent="  "
        )
    )
    print("  No provider was asked, and nothing was spent.")


def _cached(http: "httpx2.Client") -> None:
    print(console.styled("\n4. The app asks twice at temperature 0; the second answer is from the cache", "bold"))
    ask = {"model": "fast", "messages": [{"role": "user", "content": "Say it twice."}], "temperature": 0}
    for _ in range(2):
        answer = http.post("/v1/chat/completions", json=ask, headers={"authorization": f"Bearer {_APP}"})
        said = {name: answer.headers[name] for name in ("x-mcpgate-cache", "x-mcpgate-cost-usd")}
        print("  " + ", ".join(f"{name}: {value}" for name, value in said.items()))


def _ledger(http: "httpx2.Client") -> None:
    print(console.styled("\n5. The ledger: every attempt is an entry", "bold"))
    answer = http.get("/api/usage?by=key,provider,model,outcome", headers={"authorization": f"Bearer {_ADMIN}"})
    rows = [
        [row["key"], f"{row['provider']}/{row['model']}", row["outcome"], row["output_tokens"], f"${row['cost_usd']}"]
        for row in answer.json()["rows"]
        if row["provider"]
    ]
    print(
        textwrap.indent(
            console.table(["key", "target", "outcome", "tokens out", "cost"], rows, frozenset({3, 4})), "  "
        )
    )


@contextlib.contextmanager
def _gateway(folder: Path) -> Iterator[str]:
    """The gateway in a process of its own; yields its address."""
    config = folder / "models.yaml"
    config.write_text(json.dumps(CONFIG))
    log = folder / "log"
    command = [sys.executable, "-m", "mcpgate", "serve", "-c", str(config), "--port", "0"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "XDG_DATA_HOME": str(folder)},
        )
    try:
        give_up = time.monotonic() + _START_S
        while (found := re.search(r"listening on (http://[^/\s]+)", log.read_text(errors="replace"))) is None:
            if process.poll() is not None or time.monotonic() > give_up:
                raise Unavailable(f"the gateway did not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.05)
        yield found[1]
    finally:
        process.terminate()
        process.wait(20)
