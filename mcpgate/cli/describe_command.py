"""`mcpgate describe SERVER.TOOL …`: the meta-tool describe_tools, for people."""

import argparse

from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config, add_format, run_with_gateway
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext

EXAMPLES = (
    "mcpgate describe github.list_issues",
    "mcpgate describe github --format json  # all of its tools, as it sent them",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="SERVER.TOOL", help="a tool, or a server for all its tools")
    add_config(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    async def work(gateway: Gateway) -> int:
        if arguments.format == "text":
            console.say(await gateway.metatools.describe_tools(RequestContext(LOCAL), arguments.names))
        else:
            console.show([gateway.catalog.get_tool(name).raw for name in arguments.names])
        return 0

    return run_with_gateway(arguments, work)
