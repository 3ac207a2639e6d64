"""An agent of pydantic-ai. Its model is a script, so that it runs without an API key: for a real one, write
Agent("anthropic:…", toolsets=[gateway])."""

import asyncio

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent, ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.function import AgentInfo, FunctionModel
from task import ARGUMENTS, CODE, MCPGATE, QUESTION


def script(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    if len(messages) == 1:
        return ModelResponse(parts=[ToolCallPart("execute_code", {"code": CODE})])
    return ModelResponse(parts=[TextPart(str(messages[-1].parts[0].content))])


async def main() -> None:
    gateway = MCPToolset(StdioTransport(MCPGATE, ARGUMENTS))
    async with Agent(FunctionModel(script), toolsets=[gateway]) as agent:
        print((await agent.run(QUESTION)).output)


asyncio.run(main())
