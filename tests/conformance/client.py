"""mcpgate as the client that the conformance suite tests: a program for the suite's `client --command`.

The suite appends the URL of a mock server and names the scenario in the environment. This program starts a gateway with
that server as its upstream and does through it, with the SDK's client, what the scenario asks of a client. For scenarios
of authorization it signs in as a person would, with a program in place of the browser. It judges nothing: the mock server
sees what the gateway sends, and the suite draws its conclusions."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
from mcp.client import Client
from mcp.client.context import ClientRequestContext
from mcp.shared.exceptions import MCPError

from tests.conformance.suite import config, gateway
from tests.flows.governed import environment

_LIMIT_S = 100
"""Less than the suite's own, which ends only the shell that started this program."""
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


async def play(scenario: str, address: str, folder: Path, context: Mapping[str, Any]) -> None:
    revision = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
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


def main() -> None:
    scenario, url = os.environ["MCP_CONFORMANCE_SCENARIO"], sys.argv[-1]
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = auth_settings(context) if scenario.startswith("auth/") else {}
        if settings:
            config(folder, {"url": url, **settings})
            sign_in(folder)
        try:
            with gateway(folder, url, **settings) as address:
                asyncio.run(play(scenario, address, folder, context))
        finally:
            for log in folder.glob("log*"):
                print(log.read_text(), file=sys.stderr)


if __name__ == "__main__":
    main()
