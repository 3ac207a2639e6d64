"""The keys of an issuer: fetched once for all who wait, not more often than allowed, kept while it cannot be reached."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from mcpgate.errors import InvalidKey, Unavailable
from mcpgate.issuers import keys
from mcpgate.issuers.keys import FRESH_S, LONGEST_S, RETRY_S, IssuerKeys
from tests.issuer import Exchange, Issuer, SigningKey, ec_key, issuing, new_kid, rsa_key

pytestmark = pytest.mark.anyio


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture
async def known(issuer: Issuer, clock: Clock) -> AsyncIterator[IssuerKeys]:
    """The keys of the issuer, fetched once."""
    known = IssuerKeys(issuer.url, None, clock)
    await known.find("rsa-1", "RS256")
    assert issuer.count() == 1
    yield known


async def refetched(known: IssuerKeys) -> None:
    """What `find` began in the background has ended."""
    with anyio.fail_after(5):
        assert known._fetching is not None
        await known._fetching


def failing(exchange: Exchange) -> None:
    exchange.reply(503, {})


async def test_a_hundred_tokens_at_once_wait_for_one_fetch(issuer: Issuer, clock: Clock) -> None:
    held, begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def late(exchange: Exchange) -> None:
        loop.call_soon_threadsafe(begun.set)
        held.wait(5)
        exchange.reply(200, {"keys": [key.published() for key in issuer.keys]})

    issuer.documents["/jwks"] = late
    known = IssuerKeys(issuer.url, None, clock)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(known.find("rsa-1", "RS256"))
        others = [group.create_task(known.find("rsa-1", "RS256")) for _ in range(99)]
        with anyio.fail_after(5):
            await begun.wait()
        others[0].cancel()  # whoever gives up does not end it for the others
        held.set()
    assert len(first.result()) == 1 and others[0].cancelled()
    assert issuer.count() == 1


async def test_a_rotated_key_is_found_and_the_old_one_is_no_longer_good(
    issuer: Issuer, clock: Clock, known: IssuerKeys
) -> None:
    issuer.keys = [rsa_key("rsa-2", which="second")]
    with pytest.raises(InvalidKey, match="'rsa-2' for RS256, which its issuer does not publish"):
        await known.find("rsa-2", "RS256")  # too soon to ask again
    clock.now += RETRY_S
    assert await known.find("rsa-2", "RS256")
    assert issuer.count() == 2
    with pytest.raises(InvalidKey):
        await known.find("rsa-1", "RS256")


async def test_invented_names_cost_one_fetch_in_ten_seconds(issuer: Issuer, clock: Clock, known: IssuerKeys) -> None:
    clock.now += RETRY_S
    for _ in range(1000):
        with pytest.raises(InvalidKey):
            await known.find(new_kid(), "RS256")
    assert issuer.count() == 2
    assert len(known._usable) <= 1  # what nobody publishes is not remembered
    assert await known.find("rsa-1", "RS256")


async def test_old_keys_are_used_while_new_ones_are_fetched_and_while_the_issuer_is_away(
    issuer: Issuer, clock: Clock, known: IssuerKeys
) -> None:
    clock.now += FRESH_S
    assert await known.find("rsa-1", "RS256")
    await refetched(known)
    assert issuer.count() == 2
    issuer.documents["/jwks"] = failing
    for _ in range(5):
        clock.now += FRESH_S
        assert await known.find("rsa-1", "RS256")
        await refetched(known)
    assert issuer.count() == 7


async def test_after_a_day_without_the_issuer_its_keys_are_no_longer_used(
    issuer: Issuer, clock: Clock, known: IssuerKeys
) -> None:
    issuer.documents["/jwks"] = failing
    clock.now += LONGEST_S
    with pytest.raises(Unavailable, match="HTTP 503"):
        await known.find("rsa-1", "RS256")
    del issuer.documents["/jwks"]
    with pytest.raises(Unavailable):
        await known.find("rsa-1", "RS256")
    clock.now += RETRY_S
    assert await known.find("rsa-1", "RS256")


def replying(body: Any) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.reply(200, body)


BAD: dict[str, tuple[Any, str]] = {
    "huge": (b'{"keys": [' + b" " * 300_000 + b"]}", "over 262,144 bytes"),
    "not JSON": (b"<html>", "not a JSON object with `keys`"),
    "a list": ([], "not a JSON object with `keys`"),
    "empty": ({"keys": []}, "no public key"),
    "shared secrets": ({"keys": [{"kty": "oct", "k": "AAAA", "kid": "rsa-1", "alg": "HS256"}]}, "no public key"),
    "for encryption": ({"keys": [{**rsa_key().published(), "use": "enc"}]}, "no public key"),
    "for signing only": ({"keys": [{**rsa_key().published(), "key_ops": ["sign"]}]}, "no public key"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_key_set_that_cannot_be_used_leaves_the_known_keys(
    issuer: Issuer, clock: Clock, known: IssuerKeys, case: str
) -> None:
    body, reason = BAD[case]
    issuer.documents["/jwks"] = replying(body)
    assert reason in await known.probe()
    assert await known.find("rsa-1", "RS256")


async def test_a_key_set_that_takes_for_ever_is_given_up(
    issuer: Issuer, clock: Clock, known: IssuerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_FETCH_S", 0.3)
    ended = threading.Event()

    def slow(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("content-length", "100000")
        exchange.end_headers()
        while not ended.wait(0.02):
            exchange.wfile.write(b" ")
            exchange.wfile.flush()

    issuer.documents["/jwks"] = slow
    with anyio.fail_after(5):
        assert await known.probe() == "no answer within 0.3 s"
    ended.set()
    assert await known.find("rsa-1", "RS256")


async def test_of_a_thousand_keys_only_the_one_that_is_named_is_made(issuer: Issuer, clock: Clock) -> None:
    # As small as they are published, so that they fit: the issuer chooses how many there are, not what they cost.
    one = ec_key("ec-900").published()
    listed = [{**one, "kid": f"ec-{number}"} for number in range(1000)]
    issuer.documents["/jwks"] = replying({"keys": listed})
    known = IssuerKeys(issuer.url, None, clock)
    assert len(await known.find("ec-900", "ES256")) == 1
    assert len(known._usable) == 1
    with pytest.raises(InvalidKey, match="a key without a name"):
        await known.find(None, "ES256")


async def test_a_token_that_names_no_key_may_be_signed_with_the_only_one(issuer: Issuer, clock: Clock) -> None:
    issuer.keys = [rsa_key(None), ec_key()]
    known = IssuerKeys(issuer.url, None, clock)
    assert len(await known.find(None, "RS256")) == 1
    assert len(await known.find(None, "ES256")) == 1


UNFIT = {
    "a short RSA key": SigningKey("unfit", "RS256", rsa.generate_private_key(65537, 1024)),
    "an elliptic curve for RSA": ec_key("unfit"),
    "another RSA algorithm": rsa_key("unfit", "RS512"),
}


@pytest.mark.parametrize("case", UNFIT)
async def test_a_key_that_does_not_fit_the_algorithm_is_not_tried(issuer: Issuer, clock: Clock, case: str) -> None:
    issuer.keys = [UNFIT[case]]
    with pytest.raises(InvalidKey):
        await IssuerKeys(issuer.url, None, clock).find("unfit", "RS256")


async def test_metadata_of_another_issuer_are_not_believed(issuer: Issuer, clock: Clock) -> None:
    issuer.metadata = {"issuer": "https://another.example"}
    with pytest.raises(Unavailable, match="is that of https://another.example"):
        await IssuerKeys(issuer.url, None, clock).find("rsa-1", "RS256")
    assert issuer.count() == 0


async def test_keys_may_have_an_address_of_their_own(issuer: Issuer, clock: Clock) -> None:
    issuer.metadata = {"issuer": "https://another.example"}
    assert await IssuerKeys(issuer.url, f"{issuer.url}/jwks", clock).find("rsa-1", "RS256")
    assert issuer.seen == ["/jwks"]


async def test_a_redirect_to_another_place_is_not_followed(issuer: Issuer, clock: Clock) -> None:
    def elsewhere(exchange: Exchange) -> None:
        exchange.send_response(302)
        exchange.send_header("location", f"{attacker.url}/jwks")
        exchange.send_header("content-length", "0")
        exchange.end_headers()

    with issuing() as attacker:
        issuer.documents["/jwks"] = elsewhere
        with pytest.raises(Unavailable, match="not followed"):
            await IssuerKeys(issuer.url, None, clock).find("rsa-1", "RS256")
        assert attacker.seen == []
