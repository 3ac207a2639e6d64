"""What each kind of channel sends, to real receivers and programs."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mcpgate.activity.alerts import Message, Undeliverable
from mcpgate.channels.command import CommandChannel
from mcpgate.channels.webhook import WebhookChannel, shaped, signature
from mcpgate.config.telemetry import ChannelConfig
from tests.alert_receiver import SECRET, Receiver, receiving

pytestmark = pytest.mark.anyio
MESSAGE = Message("msg_1", "firing", "down", "github", "the server github <cannot> be reached", 1e9, 1e9, 1.0)


def channel(**config: Any) -> ChannelConfig:
    return ChannelConfig.model_validate(config)


def webhook(receiver: Receiver, **more: Any) -> WebhookChannel:
    return WebhookChannel(channel(type="webhook", url=receiver.address, secret=SECRET, **more))


async def test_a_webhook_gets_a_signed_message() -> None:
    with receiving() as receiver:
        await webhook(receiver).send(MESSAGE)
    (got,) = receiver.received
    assert (got["type"], got["timestamp"], receiver.signed) == ("alert.firing", "2001-09-09T01:46:40Z", [True])
    assert got["data"]["subject"] == "github" and receiver.ids == ["msg_1"]


def test_the_signature_is_that_of_the_standards_own_example() -> None:
    # https://github.com/standard-webhooks/standard-webhooks: the example of its libraries' tests
    found = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "may_retry"), [(500, True), (503, True), (429, True), (400, False), (410, False), (302, False)]
)
async def test_a_webhook_that_refuses_says_whether_to_try_again(status: int, may_retry: bool) -> None:
    with receiving() as receiver:
        receiver.fails, receiver.status = 1, status
        with pytest.raises(Undeliverable, match=f"HTTP {status}") as caught:
            await webhook(receiver).send(MESSAGE)
    assert caught.value.may_retry is may_retry
    assert receiver.received == [] and len(receiver.ids) == 1, "redirects are not followed"


async def test_a_webhook_that_is_not_there_can_be_tried_again_and_its_address_is_not_told() -> None:
    url = "http://127.0.0.1:1/services/T0/SECRETPART"
    with pytest.raises(Undeliverable) as caught:
        await WebhookChannel(channel(type="webhook", url=url)).send(MESSAGE)
    assert caught.value.may_retry and "SECRETPART" not in str(caught.value)


async def test_receivers_get_the_shape_that_they_read() -> None:
    with receiving() as receiver:
        await webhook(receiver, format="slack").send(MESSAGE)
        await webhook(receiver, format="teams").send(MESSAGE)
        await webhook(receiver, format="pagerduty", routing_key="R1").send(MESSAGE)
    slack, teams, pagerduty = receiver.received
    assert "&lt;cannot&gt;" in slack["text"]
    assert "github" in teams["attachments"][0]["content"]["body"][0]["text"]
    assert (pagerduty["event_action"], pagerduty["routing_key"]) == ("trigger", "R1")
    resolved = shaped(Message("msg_2", "resolved", "down", "github", "over", 1e9, 1e9), channel(type="webhook",
        format="pagerduty", routing_key="R1"))  # fmt: skip
    assert (resolved["event_action"], resolved["dedup_key"]) == ("resolve", pagerduty["dedup_key"])


async def test_a_command_gets_the_message_on_its_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "got"
    program = f"import sys; open({str(file)!r}, 'w').write(sys.stdin.read() + sys.argv[1])"
    await CommandChannel(channel(type="command", command=[sys.executable, "-c", program, "$HOME; x"])).send(MESSAGE)
    line, arguments = file.read_text().split("\n")
    assert json.loads(line)["data"]["alert"] == "down" and arguments == "$HOME; x"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('no luck')", "exit status 1: no luck"),
        ("import time; time.sleep(60)", "did not end within"),
    ],
)
async def test_a_command_that_fails_is_told(program: str, said: str) -> None:
    config = channel(type="command", command=[sys.executable, "-c", program], timeout_s=1)
    with pytest.raises(Undeliverable, match=said):
        await CommandChannel(config).send(MESSAGE)


async def test_a_command_that_does_not_exist_is_not_tried_again() -> None:
    with pytest.raises(Undeliverable, match="cannot be started") as caught:
        await CommandChannel(channel(type="command", command=["/nowhere/program"])).send(MESSAGE)
    assert not caught.value.may_retry


async def test_secrets_of_any_text_sign_too() -> None:
    assert signature("plain text", "m", 1, b"x") != signature("whsec_" + base64.b64encode(b"y").decode(), "m", 1, b"x")
