"""Which gateways are measured, how each is installed and started, and how each is asked for the same answer.

Every gateway has one process and one provider behind it, `benchmarks.llm_overhead.provider`. Where there are two cores,
gateways have the last of them, and the load and the provider the first.
"""

import contextlib
import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import platformdirs

from benchmarks.llm_overhead.load import Load
from benchmarks.llm_overhead.provider import EVENTS
from benchmarks.servers import Server, cache_folder, home_of, mcp_servers
from benchmarks.services import free_port

_CHECKOUT = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S = 120.0
_EXIT_TIMEOUT_S = 15.0
_PROVIDER_KEY = "sk-placeholder"
_LEAST_EVENTS = EVENTS - 5
"""Some gateways leave out an empty first event or one with nothing but the usage."""

Face = Literal["chat", "messages"]
FACES: Mapping[Face, str] = {"chat": "Chat Completions", "messages": "Messages"}

# fmt: off
LITELLM = Server(
    "litellm", "litellm==1.110.2", "litellm",
    also=(  # What the extra `proxy` names, with the released versions of LiteLLM's own packages.
        "apscheduler>=3.11.2,<4", "azure-identity>=1.25.2,<2", "azure-storage-blob>=12.28,<13", "backoff>=2.2.1,<3",
        "backports-zstd>=1,<2", "cryptography>=49,<51", "expression>=5.6,<6", "fastapi-sso>=0.19,<1",
        "fastapi>=0.136.3,<1", "granian>=2.7.4,<3", "gunicorn>=23,<24", "hiredis>=3,<4", "httpx2>=2.10,<3",
        "inquirerpy>=0.3.4,<1", "litellm-enterprise", "litellm-proxy-extras", "mcp>=2.3,<3", "orjson>=3.11.6,<4",
        "polars>=1.38.1,<2", "pyjwt>=2.13,<3", "pynacl>=1.6.2,<2", "pyroscope-io>=0.8.16,<1",
        "python-multipart>=0.0.27,<1", "restrictedpython>=8.5,<9", "rich>=13.9.4,<14", "rq>=2.7,<3", "semver>=3.0.4,<4",
        "soundfile>=0.12.1,<1", "starlette>=1.0.1,<2", "tomlkit>=0.13.3,<1", "uvicorn>=0.33,<1", "uvloop>=0.22.1,<1",
        "websockets>=15.0.1,<16",
    ),
)
# fmt: on
PORTKEY = Server("portkey", "@portkey-ai/gateway@1.15.2", "build/start-server.js")
TENSORZERO = Server("tensorzero", "tensorzero==2026.6.0", "python")


class ContestantFailed(Exception):
    """A gateway did not start, or answered wrongly. The text is its own."""


@dataclass(frozen=True)
class Cached:
    """What makes a gateway answer from its cache."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    holds: tuple[str, ...] = ()
    """What such an answer has in it, or its head."""


@dataclass(frozen=True)
class Ask:
    """How one face of a gateway is asked."""

    path: str
    model: str
    paced: str
    """The name of the model whose events come one every 20 ms."""
    headers: Mapping[str, str] = field(default_factory=dict)
    holds: tuple[str, ...] = ()
    """What every whole answer has in it, besides the provider's words."""
    cached: Cached | None = None
    """None where the cache needs a server of its own, or there is none."""


@dataclass(frozen=True)
class Launch:
    command: Sequence[str]
    asks: Mapping[Face, Ask]
    port: int | None
    """Its port; None: it says so in its log, as http://127.0.0.1:PORT."""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contestant:
    name: str
    title: str
    faces: tuple[Face, ...]
    launch: Callable[[Path, int], Launch] | None
    """(its own folder, the provider's port) → what is started. None: nothing, the provider itself is asked."""
    package: Server | None = None
    """Installed before the first start."""
    shared_memory: bool = False
    """Whether its folder is in /dev/shm, where flushing a file to disk costs nothing."""


@dataclass(frozen=True)
class Running:
    """A gateway that answers. `pid` is None where there is none."""

    pid: int | None
    port: int
    asks: Mapping[Face, Ask]

    def load(
        self,
        face: Face,
        connections: int,
        seconds: float = 0.0,
        *,
        stream: bool = False,
        paced: bool = False,
        cached: bool = False,
    ) -> Load:
        ask = self.asks[face]
        more = (ask.cached if cached else None) or Cached()
        body: dict[str, Any] = {
            "model": ask.paced if paced else ask.model,
            "messages": [{"role": "user", "content": "Tell me of foxes. " * 12}],
            "max_tokens": 100,
            **more.body,
        }
        if stream:
            body["stream"] = True
            if face == "chat":
                body["stream_options"] = {"include_usage": True}
        end = ("[DONE]" if face == "chat" else "message_stop",) if stream else ()
        words = ("quiet", *end) if stream else ("dark and quiet wood",)
        return Load(
            host="127.0.0.1",
            port=self.port,
            path=ask.path,
            headers={**ask.headers, **more.headers},
            body=json.dumps(body),
            connections=connections,
            seconds=seconds,
            stream=stream,
            holds=words if stream else (*words, *ask.holds, *more.holds),
            events=_LEAST_EVENTS if stream else 0,
        )


_OF_PROVIDER: Mapping[Face, Ask] = {
    "chat": Ask("/v1/chat/completions", "fixed", "paced"),
    "messages": Ask("/v1/messages", "fixed", "paced"),
}
"""What the provider itself is asked."""

# mcpgate

_OURS: Mapping[str, str] = {"PYTHONPATH": f"{_CHECKOUT}{os.pathsep}{_CHECKOUT / 'sandbox'}"}  # Not what is installed.


def _mcpgate(governed: bool) -> Callable[[Path, int], Launch]:
    def launch(folder: Path, provider: int) -> Launch:
        port, secret = free_port(), f"mg-bench-{secrets.token_hex(8)}"
        url = f"http://127.0.0.1:{provider}/v1"
        price = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
        targets = {"fast": "openai/fixed", "paced": "openai/paced", "claude": "claude/fixed", "slow": "claude/paced"}
        config: dict[str, Any] = {
            "mcpServers": {},
            "llm": {
                "providers": {
                    "openai": {"type": "openai", "base_url": url, "api_key": _PROVIDER_KEY},
                    "claude": {"type": "anthropic", "base_url": url, "api_key": _PROVIDER_KEY},
                },
                "models": {name: {"targets": [{"target": target}]} for name, target in targets.items()},
                "prices": dict.fromkeys(targets.values(), price) if governed else {},
            },
            "storage": {"url": f"sqlite:///{folder / 'mcpgate.sqlite3'}"},
        }
        if governed:
            key = {
                "grants": {"tools": ["*"], "models": ["*"]},
                "secret": secret,
                "budget": {"limit_usd": 1_000_000, "period": "1d"},
                "rate_limits": [{"requests": 100_000_000, "window": "1m"}],
            }
            config["governance"] = {"keys": {"bench": key}}
        file = folder / "mcpgate.yaml"
        file.write_text(json.dumps(config, indent=2))  # JSON is YAML.
        headers = {"authorization": f"Bearer {secret}"} if governed else {}
        cached = Cached({"x-mcpgate-cache": "use", "x-mcpgate-cache-ttl": "3600"}, holds=("x-mcpgate-cache: exact",))
        return Launch(
            (sys.executable, "-m", "mcpgate", "serve", "-c", str(file), "--port", str(port)),
            {
                "chat": Ask("/v1/chat/completions", "fast", "paced", headers, cached=cached),
                "messages": Ask("/v1/messages", "claude", "slow", headers, cached=cached),
            },
            port,
            {
                **_OURS,
                "XDG_CACHE_HOME": platformdirs.user_cache_dir(),  # The sandbox is compiled once, not at each start.
            },
        )

    return launch


def _forwarder(_: Path, provider: int) -> Launch:
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.llm_overhead.forwarder", str(port), str(provider))
    return Launch(command, _OF_PROVIDER, port, _OURS)


# Others


def _litellm(rust: bool) -> Callable[[Path, int], Launch]:
    def launch(folder: Path, provider: int) -> Launch:
        port, key = free_port(), f"sk-{secrets.token_hex(24)}"
        chat = {"api_base": f"http://127.0.0.1:{provider}/v1", "api_key": _PROVIDER_KEY}
        messages = {"api_base": f"http://127.0.0.1:{provider}", "api_key": _PROVIDER_KEY}
        models = {
            "fast": {"model": "openai/fixed", **chat},
            "paced": {"model": "openai/paced", **chat},
            "claude": {"model": "anthropic/fixed", **messages},
            "slow": {"model": "anthropic/paced", **messages},
        }
        entries = [{"model_name": name, "litellm_params": entry} for name, entry in models.items()]
        file = folder / "litellm.yaml"
        # Off unless a request asks for it, so that the other rows reach the provider.
        settings = {"cache": True, "cache_params": {"type": "local", "mode": "default_off"}}
        file.write_text(json.dumps({"model_list": entries, "litellm_settings": settings}, indent=2))
        cached = Cached(body={"cache": {"use-cache": True}}, holds=("x-litellm-cache-key",))
        headers = {"authorization": f"Bearer {key}"}
        holds = ("x-litellm-rust: true",) if rust else ()
        asks: dict[Face, Ask] = {"messages": Ask("/v1/messages", "claude", "slow", headers, holds)}
        if not rust:
            asks["chat"] = Ask("/v1/chat/completions", "fast", "paced", headers, cached=cached)
        env = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        if rust:
            env["LITELLM_RUST"] = "true"
        program = _program(LITELLM)
        script = (str(Path(program).with_name("python")), str(Path(__file__).with_name("litellm_rust.py")))
        options = ("--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False")
        return Launch((*(script if rust else (program,)), *options), asks, port, env)

    return launch


def _portkey(_: Path, provider: int) -> Launch:
    port = free_port()
    headers = {
        "authorization": f"Bearer {_PROVIDER_KEY}",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{provider}/v1",
    }
    script = home_of(PORTKEY) / "node_modules" / PORTKEY.package.rpartition("@")[0] / PORTKEY.program
    ask = Ask("/v1/chat/completions", "fixed", "paced", headers)  # On Node.js its cache is "DISABLED", as it says.
    return Launch(("node", str(script), "--headless", f"--port={port}"), {"chat": ask}, port)


def _tensorzero(folder: Path, provider: int) -> Launch:
    lines = ["[gateway]", "observability.enabled = false"]
    for model in ("fixed", "paced"):
        lines += [f"[models.{model}]", 'routing = ["bench"]', f"[models.{model}.providers.bench]", 'type = "openai"']
        lines += [f'model_name = "{model}"', f'api_base = "http://127.0.0.1:{provider}/v1/"']
        lines += ['api_key_location = "env::PROVIDER_KEY"']
    file = folder / "tensorzero.toml"
    file.write_text("\n".join(lines) + "\n")
    script = Path(__file__).with_name("tensorzero_gateway.py")
    ask = Ask("/openai/v1/chat/completions", "tensorzero::model_name::fixed", "tensorzero::model_name::paced")
    return Launch((_program(TENSORZERO), str(script), str(file)), {"chat": ask}, None, {"PROVIDER_KEY": _PROVIDER_KEY})


_BOTH: tuple[Face, ...] = ("chat", "messages")
CONTESTANTS = (
    Contestant("mcpgate", "mcpgate, governed", _BOTH, _mcpgate(governed=True)),
    Contestant("mcpgate-memory", "… ledger in memory", _BOTH, _mcpgate(governed=True), shared_memory=True),
    Contestant("mcpgate-bare", "mcpgate, bare", _BOTH, _mcpgate(governed=False)),
    Contestant("forwarder", "Python that only forwards", _BOTH, _forwarder),
    Contestant("direct", "no gateway", _BOTH, None),
    Contestant("litellm", "LiteLLM 1.110.2", _BOTH, _litellm(rust=False), LITELLM),
    Contestant("litellm-rust", "LiteLLM 1.110.2, Rust", ("messages",), _litellm(rust=True), LITELLM),
    Contestant("portkey", "Portkey 1.15.2", ("chat",), _portkey, PORTKEY),
    Contestant("tensorzero", "TensorZero 2026.6.0", ("chat",), _tensorzero, TENSORZERO),
)
"""mcpgate comes first: the others are compared with it."""
DIRECT = next(contestant for contestant in CONTESTANTS if contestant.launch is None)


def cores() -> tuple[int, int] | None:
    """(for the load and the provider, for the gateways); None where there is only one core."""
    mine = sorted(os.sched_getaffinity(0))
    return (mine[0], mine[-1]) if len(mine) > 1 else None


def spawn(command: Sequence[str], core: int | None, **options: Any) -> "subprocess.Popen[Any]":
    """Starts a process that has one core, and whose threads and children have the same."""
    mine = os.sched_getaffinity(0)
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        return subprocess.Popen(command, **options)
    finally:
        os.sched_setaffinity(0, mine)


@contextlib.contextmanager
def start(contestant: Contestant, provider: int) -> Iterator[Running]:
    """Starts a gateway, and yields it when every face has answered. Raises ContestantFailed."""
    if contestant.launch is None:
        yield Running(None, provider, _OF_PROVIDER)
        return
    parent = Path("/dev/shm") if contestant.shared_memory else cache_folder() / "llm_overhead"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mcpgate-", dir=parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        launch = contestant.launch(folder, provider)
        log = folder / "log"
        apart = cores()
        inherited = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        with log.open("wb") as out:
            process = spawn(
                launch.command,
                apart[1] if apart else None,
                cwd=folder,
                env={**inherited, "HOME": str(folder), "NO_PROXY": "127.0.0.1", **launch.env},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            yield _ready(process, launch, log)
        finally:
            process.terminate()
            process.stdin.close()
            try:
                process.wait(_EXIT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(process: "subprocess.Popen[Any]", launch: Launch, log: Path) -> Running:
    ends = time.monotonic() + _START_TIMEOUT_S
    said = ""
    while time.monotonic() < ends and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text(errors="replace")) if not launch.port else None
        if port := launch.port or (int(found[1]) if found else None):
            running = Running(process.pid, port, launch.asks)
            said = next((text for face in launch.asks if (text := _wrong(running.load(face, 1)))), "")
            if not said:
                return running
        time.sleep(0.1)
    words = " ".join(log.read_text(errors="replace").split())[-600:]
    how = f"ended with {process.returncode}" if process.poll() is not None else f"did not answer: {said}"
    raise ContestantFailed(f"{how}; its last words: {words}")


def _wrong(load: Load) -> str:
    """What is wrong with the answer to one request; empty: nothing."""
    connection = http.client.HTTPConnection(load.host, load.port, timeout=20)
    try:
        connection.request("POST", load.path, load.body.encode(), {"content-type": "application/json", **load.headers})
        answer = connection.getresponse()
        text = str(answer.headers) + answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    is_good = answer.status == 200 and all(held in text for held in load.holds)
    return "" if is_good else f"{answer.status} {text[:400]}"


def _program(package: Server) -> str:
    command: str = mcp_servers([package], cache_folder() / "llm_overhead" / "work")[package.name]["command"]
    return command
