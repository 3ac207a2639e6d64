"""Tells alerts to a webhook, signed as Standard Webhooks has it, in the shape that its receiver reads."""

import base64
import binascii
import hashlib
import hmac
import time
from typing import Any

import httpx2
import orjson

from mcpgate import __version__
from mcpgate.activity.alerts import Message, Undeliverable
from mcpgate.config.telemetry import ChannelConfig
from mcpgate.telemetry.text import one_line
from mcpgate.upstream.bodies import tls

_PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
_SIGNS = {"firing": "🔴", "resolved": "🟢", "test": "⚪"}
_MOST_SAID = 300


class WebhookChannel:
    """Implements activity.alerts.Channel."""

    def __init__(self, config: ChannelConfig) -> None:
        self._config = config
        self._url = config.url.get_secret_value() if config.url is not None else _PAGERDUTY

    async def send(self, message: Message) -> None:
        body = orjson.dumps(shaped(message, self._config))
        headers = {"content-type": "application/json", "user-agent": f"mcpgate/{__version__}"}
        if self._config.secret is not None:
            headers |= signature(self._config.secret.get_secret_value(), message.id, int(time.time()), body)
        try:
            # A client for each message: they are rare, and no connection is kept for them.
            async with (
                httpx2.AsyncClient(verify=tls(), timeout=self._config.timeout_s, follow_redirects=False) as client,
                client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                status, said = answer.status_code, await _beginning(answer)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as error:
            raise Undeliverable(one_line(f"{type(error).__name__}: {error}", _MOST_SAID)) from None
        if not 200 <= status < 300:
            shown = f": {one_line(said, _MOST_SAID)}" if said else ""
            raise Undeliverable(f"HTTP {status}{shown}", may_retry=status in (408, 425, 429) or status >= 500)


def signature(secret: str, id: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks. `at`: epoch seconds."""
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            pass  # somebody's own text, which happens to begin so
    signed = hmac.new(key, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def shaped(message: Message, config: ChannelConfig) -> dict[str, Any]:
    """A message in the shape that its receiver reads."""
    line = f"{_SIGNS[message.happening]} {message.alert}: {message.text}"
    match config.format:
        case "slack":
            return {"text": line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
        case "teams":
            block = {"type": "TextBlock", "text": line, "wrap": True}
            card = {"type": "AdaptiveCard", "version": "1.4", "body": [block]}
            attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
            return {"type": "message", "attachments": [attachment]}
        case "pagerduty":
            key = "" if config.routing_key is None else config.routing_key.get_secret_value()
            details = message.to_json()["data"]
            summary = f"{message.alert}: {message.text}"[:1024]
            severity = "info" if message.happening == "test" else "error"
            return {
                "routing_key": key,
                "event_action": "resolve" if message.happening == "resolved" else "trigger",
                "dedup_key": f"mcpgate/{message.alert}/{message.subject}"[:255],
                "payload": {"summary": summary, "source": "mcpgate", "severity": severity, "custom_details": details},
            }
    return message.to_json()


async def _beginning(answer: httpx2.Response) -> str:
    """Of what it says; no more is read."""
    async for piece in answer.aiter_raw(4096):
        return piece[: 4 * _MOST_SAID].decode("utf-8", "replace")
    return ""
