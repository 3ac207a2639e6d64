"""The MCP Python SDK: list the meta-tools, search, run code."""

import asyncio

from mcp import Client, StdioServerParameters
from task import ARGUMENTS, CODE, MCPGATE


async def main() -> None:
    async with Client(StdioServerParameters(command=MCPGATE, args=ARGUMENTS)) as client:
        print([tool.name for tool in (await client.list_tools()).tools])
        found = await client.call_tool("list_tools", {"query": "convert a time"})
        print(found.content[0].text)
        answer = await client.call_tool("execute_code", {"code": CODE})
        print(answer.content[0].text)


asyncio.run(main())
