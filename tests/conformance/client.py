"""mcpgate as the client that the conformance suite tests.

The suite starts a client for each scenario. What it starts is relay.py, which hands the URL of the suite's mock server
to this process: importing everything anew would take longer than most scenarios. For each scenario, a gateway is started
with the mock server as its upstream, and the SDK's client does through it what the scenario asks of a client. For
scenarios of authorization it signs in as a person would, with a program in place of the browser. Nothing is judged here:
the mock server sees what the gateway sends, and the suite draws its conclusions."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
from mcp.client import Client
from mcp.client.context import ClientRequestContext
from mcp.shared.exceptions import MCPError

from tests.conformance.suite import Outcome, config, gateway, run_client
from tests.flows.governed import environment

_RELAY = (sys.executable, "-I", "-S", str(Path(__file__).with_name("relay.py")))
_START_LIMIT_S = 60
"""For the suite to start its client."""
_LIMIT_S = 100
"""Less than the suite's own, after which nobody waits for the outcome."""
_SIGN_INS = 4
_BROWSER = f"{sys.executable} -m tests.conformance.browser %s &"
_CLIENT_METADATA = "https://conformance-test.local/client-metadata.json"
"""What the suite expects as the identifier of a client that publishes its metadata."""

_CALLS: Mapping[str, Sequence[tuple[str, dict[str, Any]]]] = {
    "tools_call": [("add_numbers", {"a": 5, "b": 3})],
    "request-metadata": [("add_numbers", {"a": 5, "b": 3})],
    "sse-retry": [("test_reconnection", {})],
    "elicitation-sep1034-client-defaults": [("test_client_elicitation_defaults", {})],
    "sep-2322-client-request-state": [
        (f"test_mrtr_{name}", {}) for name in ("echo_state", "unrelated", "no_state", "no_result_type")
    ],
}
_EXAMPLES: Mapping[str, Any] = {"integer": 1, "number": 1, "boolean": True, "object": {}, "array": [], "null": None}


def calls(
    scenario: str, tools: Sequence[types.Tool], context: Mapping[str, Any]
) -> Sequence[tuple[str, dict[str, Any]]]:
    """The tools to call, with their arguments."""
    if scenario.startswith("auth/"):
        return [(tool.name, {}) for tool in tools[:1]]
    if scenario == "http-custom-headers":
        shown = {tool.name for tool in tools}
        return [(call["name"], call.get("arguments") or {}) for call in context["toolCalls"] if call["name"] in shown]
    if scenario == "http-invalid-tool-headers":
        return [(tool.name, _required_arguments(tool)) for tool in tools]
    if scenario == "http-standard-headers":
        return [(tool.name, _required_arguments(tool)) for tool in tools[:1]]
    if scenario == "json-schema-2020-12-preservation":
        schema = next(tool.input_schema for tool in tools if tool.name == "json_schema_2020_12_tool")
        return [("json_schema_echo", {"schema": schema})]
    return _CALLS.get(scenario, [])


def _required_arguments(tool: types.Tool) -> dict[str, Any]:
    properties = tool.input_schema.get("properties", {})
    return {
        name: _EXAMPLES.get(properties.get(name, {}).get("type"), "text")
        for name in tool.input_schema.get("required", [])
    }


async def elicit(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    """Accepts what is proposed, and says yes where nothing is."""
    properties = params.requested_schema["properties"] if isinstance(params, types.ElicitRequestFormParams) else {}
    content = {
        name: field.get("default", True)
        for name, field in properties.items()
        if "default" in field or field.get("type") == "boolean"
    }
    return types.ElicitResult(action="accept", content=content)


async def sample(context: ClientRequestContext, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    return types.CreateMessageResult(
        role="assistant", content=types.TextContent(type="text", text="sampled"), model="none"
    )


async def list_roots(context: ClientRequestContext) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[])


def auth_settings(context: Mapping[str, Any]) -> dict[str, Any]:
    registered = {key: context[key] for key in ("client_id", "client_secret") if key in context}
    return {"auth": {"type": "oauth", **(registered or {"client_metadata_url": _CLIENT_METADATA})}}


def sign_in(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "mcpgate", "auth", "login", "up", "-c", str(folder / "mcpgate.yaml")],
        env=environment(folder, BROWSER=_BROWSER),
        stdout=sys.stderr,
        stderr=subprocess.STDOUT,
        timeout=_LIMIT_S,
        check=True,
    )


async def call(client: Client, folder: Path, name: str, arguments: dict[str, Any]) -> None:
    """One call; signs in again as often as the gateway asks for it, within reason."""
    for _ in range(_SIGN_INS):
        try:
            result = await client.call_tool(name, arguments)
            print(name, result, file=sys.stderr)
            answer = str(result.content) if result.is_error else ""
        except MCPError as error:
            print(name, repr(error), file=sys.stderr)
            answer = str(error)
        if "mcpgate auth login" not in answer:
            return
        await asyncio.to_thread(sign_in, folder)


async def list_tools(client: Client, address: str, folder: Path) -> Sequence[types.Tool]:
    """The tools; signs in again if the gateway waits for that, because a server changed its mind."""
    for _ in range(_SIGN_INS):
        tools = (await client.list_tools()).tools
        if tools or await _state(address) != "needs_sign_in":
            return tools
        await asyncio.to_thread(sign_in, folder)
        while await _state(address) in ("needs_sign_in", "connecting"):
            await asyncio.sleep(0.05)
    return []


async def _state(address: str) -> str:
    async with httpx2.AsyncClient() as http:
        ready = await http.get(address.replace("/mcp/one", "/readyz"))
    return str(ready.json()["upstreams"]["up"])


async def play(revision: str, scenario: str, address: str, folder: Path, context: Mapping[str, Any]) -> None:
    mode = "legacy" if revision < "2026" else revision
    async with (
        asyncio.timeout(_LIMIT_S),
        Client(
            address,
            mode=mode,
            cache=None,
            elicitation_callback=elicit,
            sampling_callback=sample,
            list_roots_callback=list_roots,
        ) as client,
    ):
        tools = await list_tools(client, address, folder)
        print("tools:", [tool.name for tool in tools], file=sys.stderr)
        for name, arguments in calls(scenario, tools, context):
            await call(client, folder, name, arguments)
        if scenario == "http-standard-headers":
            for resource in (await client.list_resources()).resources[:1]:
                await client.read_resource(resource.uri)
            for prompt in (await client.list_prompts()).prompts[:1]:
                await client.get_prompt(prompt.name)


def run_gateway(revision: str, scenario: str) -> Outcome:
    """The outcome of a scenario with mcpgate as the client."""
    with (
        tempfile.TemporaryDirectory() as name,
        socket.socket(socket.AF_UNIX) as listener,
        ThreadPoolExecutor(1) as suite,
    ):
        listener.bind(f"{name}/relay")
        listener.listen()
        listener.settimeout(_START_LIMIT_S)
        outcome = suite.submit(run_client, revision, [*_RELAY, f"{name}/relay"], scenario)
        with contextlib.suppress(TimeoutError):
            relay, _ = listener.accept()
            relay.settimeout(None)
            with relay, relay.makefile("rw") as stream:
                url, context = json.loads(stream.readline())
                json.dump(_log_of_run(revision, scenario, url, context, Path(name)), stream)
        return outcome.result()


def _log_of_run(revision: str, scenario: str, url: str, context: Mapping[str, Any], folder: Path) -> tuple[bool, str]:
    """Whether the client came to its end, and what it and the gateway wrote."""
    ended = False
    log = folder / "client.log"
    with log.open("w") as output, contextlib.redirect_stderr(output):
        try:
            _run(revision, scenario, url, context, folder)
            ended = True
        except Exception:
            traceback.print_exc()
    return ended, "\n".join(file.read_text() for file in (log, *folder.glob("log*")))


def _run(revision: str, scenario: str, url: str, context: Mapping[str, Any], folder: Path) -> None:
    settings = auth_settings(context) if scenario.startswith("auth/") else {}
    if settings:
        config(folder, {"url": url, **settings})
        sign_in(folder)
    with gateway(folder, url=url, **settings) as address:
        asyncio.run(play(revision, scenario, address, folder, context))
