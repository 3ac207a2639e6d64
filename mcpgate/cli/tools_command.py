"""`mcpgate tools [QUERY]`: the meta-tool list_tools, for people."""

import argparse

from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config, add_format, run_with_gateway
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext

EXAMPLES = (
    "mcpgate tools                        # the servers",
    "mcpgate tools convert a time         # the best matches",
    "mcpgate tools --server github --limit 50",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", nargs="*", help="what you need, in words; default: list the servers")
    parser.add_argument("--server", help="only this server's tools")
    parser.add_argument("--limit", type=int, help="show at most this many")
    add_config(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    query = " ".join(arguments.query)

    async def work(gateway: Gateway) -> int:
        if query:
            await gateway.indexer.settled()
        if arguments.format == "text":
            console.say(
                await gateway.metatools.list_tools(
                    RequestContext(LOCAL), query or None, arguments.server, arguments.limit
                )
            )
            return 0
        server = gateway.catalog.get_server(arguments.server) if arguments.server else None
        if query:
            tools = gateway.catalog.search(query, arguments.limit or 12, server.name if server else None)
        else:
            tools = list(server.tools if server else gateway.catalog.tools)[: arguments.limit]
        console.show(
            [{"server": t.server, "name": t.qualified, "original": t.name, "description": t.description} for t in tools]
        )
        return 0

    return run_with_gateway(arguments, work)
