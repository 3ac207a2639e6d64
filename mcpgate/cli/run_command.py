"""`mcpgate run FILE.py|-`: the meta-tool execute_code, for people. Images and blobs go to files."""

import argparse
import base64
import mimetypes
import sys
from pathlib import Path

from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config, add_format, run_with_gateway
from mcpgate.errors import ConfigError
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.py|-", help="the code; - reads it from stdin")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="a shorter limit than sandbox.timeout_s")
    parser.add_argument(
        "--save", metavar="FOLDER", default=".", help="where to save returned images and blobs (default: here)"
    )
    add_config(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    try:
        code = sys.stdin.read() if arguments.file == "-" else Path(arguments.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{arguments.file}: cannot be read: {error}") from error

    async def work(gateway: Gateway) -> int:
        answer = await gateway.metatools.execute_code(RequestContext(LOCAL), code, timeout_s=arguments.timeout)
        files = [_save(block, number, Path(arguments.save)) for number, block in enumerate(answer.blocks, 1)]
        outcome = answer.outcome
        if arguments.format == "json":
            console.show(
                {
                    "ok": not answer.is_error,
                    "text": answer.text,
                    "result": outcome.result if outcome else None,
                    "stdout": outcome.stdout if outcome else "",
                    "error": str(outcome.error)
                    if outcome and outcome.error
                    else answer.text
                    if answer.is_error
                    else None,
                    "tool_calls": outcome.tool_calls if outcome else 0,
                    "cpu_s": round(outcome.cpu_s, 4) if outcome else 0,
                    "wall_s": round(outcome.wall_s, 4) if outcome else 0,
                    "files": files,
                }
            )
        else:
            stream = sys.stderr if answer.is_error else sys.stdout
            # A file or a program gets what the code gave; a terminal nothing that it would obey.
            console.say(answer.text, stream) if stream.isatty() else print(answer.text, file=stream)
            for file in files:
                print(f"saved {file}", file=sys.stderr)
        return 1 if answer.is_error else 0

    # The runner itself waits, and only for the servers that the code names.
    return run_with_gateway(arguments, work, wait=False, with_engine=True)


def _save(block: dict[str, object], number: int, folder: Path) -> str:
    inner = block.get("resource")
    resource = inner if isinstance(inner, dict) else block
    data = resource.get("data") or resource.get("blob") or ""
    suffix = mimetypes.guess_extension(str(resource.get("mimeType"))) or ".bin"
    path = folder / f"mcpgate-{number}{suffix}"
    path.write_bytes(base64.b64decode(str(data)))
    return str(path)
