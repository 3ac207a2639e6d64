"""The FastMCP client: the same over its own client class."""

import asyncio

from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from task import ARGUMENTS, CODE, MCPGATE


async def main() -> None:
    async with Client(StdioTransport(MCPGATE, ARGUMENTS)) as client:
        stub = await client.call_tool("describe_tools", {"names": ["time.convert_time"]})
        print(stub.content[0].text)
        answer = await client.call_tool("execute_code", {"code": CODE})
        print(answer.content[0].text)


asyncio.run(main())
