"""Tells alerts to a program, as JSON on its standard input; and to the gateway's own log."""

import asyncio
import contextlib
import logging

import orjson

from mcpgate.activity.alerts import Message, Undeliverable
from mcpgate.config.telemetry import ChannelConfig
from mcpgate.telemetry.text import one_line

log = logging.getLogger("mcpgate.alerts")
_MOST_SAID = 300


class CommandChannel:
    """Implements activity.alerts.Channel."""

    def __init__(self, config: ChannelConfig) -> None:
        self._config = config

    async def send(self, message: Message) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._config.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise Undeliverable(f"it cannot be started: {error}", may_retry=False) from None
        assert process.stdin is not None and process.stderr is not None
        try:
            async with asyncio.timeout(self._config.timeout_s):
                with contextlib.suppress(ConnectionError):  # it need not read
                    process.stdin.write(orjson.dumps(message.to_json()) + b"\n")
                    await process.stdin.drain()
                process.stdin.close()
                said = await process.stderr.read(4096)
                code = await process.wait()
        except TimeoutError:
            raise Undeliverable(f"it did not end within {self._config.timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if code:
            raise Undeliverable(f"exit status {code}: {one_line(said.decode('utf-8', 'replace'), _MOST_SAID)}")


class LogChannel:
    """Implements activity.alerts.Channel."""

    async def send(self, message: Message) -> None:
        level = logging.WARNING if message.happening == "firing" else logging.INFO
        log.log(level, "alert %s %s: %s", message.alert, message.happening, message.text)
