"""`mcpgate alerts test`: whether alerts would arrive."""

import argparse
import asyncio

from mcpgate.activity.watch import try_channels
from mcpgate.app import make_channel
from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config
from mcpgate.config.files import find_config, load_config
from mcpgate.telemetry.text import visible

EXAMPLES = ("mcpgate alerts test                    # a test message to every channel",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    about = "send a test message to every channel; exit 1 if one does not take it"
    add_config(actions.add_parser("test", help=about, description=about[0].upper() + about[1:] + "."))


def run(arguments: argparse.Namespace) -> int:
    telemetry = load_config(find_config(arguments.config), tolerant=True).telemetry
    if not telemetry.channels:
        console.note("there are no channels; add some to telemetry.channels")
        return 1
    found = asyncio.run(try_channels(telemetry.channels, make_channel))
    rows = [[name, telemetry.channels[name].type, visible(error) or "sent"] for name, error in found.items()]
    print(console.table(("channel", "type", "result"), rows))
    unused = set(telemetry.channels) - {name for alert in telemetry.alerts for name in alert.channels}
    if unused:
        console.note(f"no alert uses {', '.join(sorted(unused))}")
    return 1 if any(found.values()) else 0
