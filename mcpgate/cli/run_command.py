"""`mcpgate run FILE.py|-`: the meta-tool execute_code, for people. Images and blobs go to files."""

import argparse
import base64
import mimetypes
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config, add_format, run_with_gateway
from mcpgate.errors import ConfigError
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext

EXAMPLES = (
    "mcpgate run report.py",
    "echo 'time.get_current_time(timezone=\"Asia/Tokyo\")' | mcpgate run -",
    "mcpgate run screenshots.py --save pictures --timeout 120",
)


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
        files, unsaved = _save(answer.blocks, Path(arguments.save))
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
        if unsaved is not None:
            raise unsaved  # only now: the answer must not be lost with its files
        return 1 if answer.is_error else 0

    # The runner itself waits, and only for the servers that the code names.
    return run_with_gateway(arguments, work, wait=False, with_engine=True)


def _save(blocks: Sequence[Mapping[str, object]], folder: Path) -> tuple[list[str], ConfigError | None]:
    """The files that were written, and the error that kept the rest from being written."""
    files: list[str] = []
    try:
        for number, block in enumerate(blocks, 1):
            inner = block.get("resource")
            resource = inner if isinstance(inner, dict) else block
            data = resource.get("data") or resource.get("blob") or ""
            suffix = mimetypes.guess_extension(str(resource.get("mimeType"))) or ".bin"
            path = folder / f"mcpgate-{number}{suffix}"
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(str(data)))
            files.append(str(path))
    except (OSError, ValueError) as error:  # ValueError: what the code returned is not base64
        return files, ConfigError(
            f"cannot save file {len(files) + 1} in {folder}: {error}; choose another --save FOLDER"
        )
    return files, None
