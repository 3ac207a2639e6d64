"""An agent of a real framework (pydantic-ai) does a task through the gateway, over stdio and over HTTP. Its model
is a script, because tests cannot reach a provider; everything else is what a user would run."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from tests.conftest import raw, serve_command
from tests.flows.clients import http_gateway

pytestmark = pytest.mark.anyio


def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """First search for a tool, then write code with the call shape found, then answer."""
    returns = [
        str(part.content)
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]
    assert {tool.name for tool in info.function_tools} == {"list_tools", "describe_tools", "read_docs", "execute_code"}
    if not returns:
        return ModelResponse(parts=[ToolCallPart("list_tools", {"query": "add two numbers"})])
    if len(returns) == 1:
        name = returns[0].split("(")[0].splitlines()[-1]
        code = f"sums = await asyncio.gather(*[{name}(a=i, b=i) for i in range(10)])\nsum(s['sum'] for s in sums)"
        return ModelResponse(parts=[ToolCallPart("execute_code", {"code": code})])
    return ModelResponse(parts=[TextPart(json.dumps({"answer": returns[1]}))])


async def test_over_stdio(config_file: Callable[..., Path]) -> None:
    command, *arguments = serve_command(config_file({"raw": raw()}), "--stdio")
    server = MCPToolset(StdioTransport(command, arguments, env=dict(os.environ)))
    async with Agent(FunctionModel(scripted), toolsets=[server]) as agent:
        assert (await agent.run("What is the sum?")).output == '{"answer": "90"}'


async def test_over_http(config_file: Callable[..., Path], tmp_path: Path) -> None:
    async with http_gateway(config_file({"raw": raw()}), tmp_path / "stderr") as address:
        server = MCPToolset(f"{address}/mcp")
        async with Agent(FunctionModel(scripted), toolsets=[server]) as agent:
            assert (await agent.run("What is the sum?")).output == '{"answer": "90"}'
