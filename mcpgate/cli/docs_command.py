"""`mcpgate docs TOPIC`: the meta-tool read_docs, for people."""

import argparse

from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config, run_with_gateway
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext

EXAMPLES = (
    "mcpgate docs sandbox             # what code may do",
    "mcpgate docs github              # a server's own instructions and resources",
    "mcpgate docs github.list_issues",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", nargs="*", help="sandbox, a server, server.tool, or a server and a resource URI")
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    async def work(gateway: Gateway) -> int:
        console.say(await gateway.metatools.read_docs(RequestContext(LOCAL), " ".join(arguments.topic)))
        return 0

    return run_with_gateway(arguments, work)
