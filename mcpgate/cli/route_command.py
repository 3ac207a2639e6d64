"""`mcpgate route explain MODEL`: where a request for a model would go, and why, without sending anything."""

import argparse
from dataclasses import asdict

from mcpgate.api.admin.models import Wanted
from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config, add_format, run_with_gateway
from mcpgate.errors import ConfigError
from mcpgate.gateway import Gateway

EXAMPLES = (
    "mcpgate route explain fast",
    "mcpgate route explain auto --metadata env=dev --team search --stream",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    explain = actions.add_parser("explain", help="for one request", description="Explain where one request would go.")
    explain.add_argument("model", metavar="MODEL", help="as the client would name it")
    for scope in ("key", "user", "team", "customer"):
        explain.add_argument(f"--{scope}", metavar="ID", help=f"the {scope} that asks")
    explain.add_argument(
        "--metadata", metavar="NAME=VALUE", action="append", default=[], help="what the request carries"
    )
    explain.add_argument("--session", metavar="ID", default="", help="the session that it belongs to")
    for quality, about in (("stream", "is streamed"), ("tools", "has tools"), ("images", "has images")):
        explain.add_argument(f"--{quality}", action="store_true", help=f"the request {about}")
    explain.add_argument("--input-tokens", type=int, default=0, metavar="N", help="the size of the request")
    explain.add_argument("--budget-used", type=float, metavar="SHARE", help="of the fullest budget, such as 0.8")
    add_config(explain)
    add_format(explain)


def run(arguments: argparse.Namespace) -> int:
    pairs = [text.partition("=") for text in arguments.metadata]
    if wrong := next((name for name, sign, _ in pairs if not sign or not name), None):
        raise ConfigError(f"--metadata {wrong}: write NAME=VALUE")
    scopes = ("key", "user", "team", "customer", "session", "stream", "tools", "images", "input_tokens", "budget_used")
    wanted = Wanted(
        model=arguments.model,
        metadata={name: value for name, _, value in pairs},
        **{name: getattr(arguments, name) for name in scopes},
    )

    async def work(gateway: Gateway) -> int:
        targets, steps = gateway.chat.explain(wanted.caller(), wanted.asked(), wanted.budget_used)
        if arguments.format == "json":
            console.show({"targets": [one.name for one in targets], "steps": [asdict(step) for step in steps]})
            return 0
        for step in steps:
            print(f"{step.what}: {'taken' if step.taken else 'not taken'}, because {step.why}")
        for number, target in enumerate(targets, 1):
            falls = f"; the next one for {', '.join(target.fallback_on)}" if number < len(targets) else ""
            retries = f", tried up to {target.retries + 1} times" if target.retries else ""
            print(f"{number}. {target.name}{retries}{falls}")
        return 0

    return run_with_gateway(arguments, work)
