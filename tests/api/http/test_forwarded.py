"""Whose request a proxy passes on."""

import ipaddress

import pytest

from mcpgate.api.http.forwarded import client_of, scheme_of
from mcpgate.api.http.headers import read_headers
from mcpgate.api.http.places import origin_of
from mcpgate.errors import InvalidRequest

TRUSTED = tuple(ipaddress.ip_network(text) for text in ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32"))


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("127.0.0.1", {}, "127.0.0.1"),
        ("1.2.3.4", {"x-forwarded-for": "9.9.9.9"}, "1.2.3.4"),
        ("127.0.0.1", {"x-forwarded-for": "9.9.9.9"}, "9.9.9.9"),
        ("127.0.0.1", {"x-forwarded-for": "6.6.6.6, 9.9.9.9, 10.1.1.1"}, "9.9.9.9"),
        ("127.0.0.1", {"x-forwarded-for": "10.2.2.2, 10.1.1.1"}, "10.2.2.2"),
        ("127.0.0.1", {"x-forwarded-for": "9.9.9.9:4711"}, "9.9.9.9"),
        ("127.0.0.1", {"x-forwarded-for": "[2001:470::1]:80"}, "2001:470::1"),
        ("127.0.0.1", {"x-forwarded-for": "::ffff:9.9.9.9"}, "9.9.9.9"),
        ("::ffff:127.0.0.1", {"x-forwarded-for": "9.9.9.9"}, "9.9.9.9"),
        ("2001:db8::7", {"x-forwarded-for": "9.9.9.9"}, "9.9.9.9"),
        ("127.0.0.1", {"x-forwarded-for": "9.9.9.9, unknown"}, None),
        ("127.0.0.1", {"x-forwarded-for": "9.9.9.9, <script>"}, None),
        ("127.0.0.1", {"forwarded": 'for=9.9.9.9;proto=https, for="[2001:db8::1]:1"'}, "9.9.9.9"),
        ("127.0.0.1", {"forwarded": "For=9.9.9.9, for=10.0.0.1", "x-forwarded-for": "9.9.9.9"}, "9.9.9.9"),
        ("127.0.0.1", {"forwarded": 'for="6.6.6.6, for=9.9.9.9'}, "9.9.9.9"),
        ("127.0.0.1", {"forwarded": 'for=6.6.6.6, x=", for="9.9.9.9:1"'}, "9.9.9.9"),
        ("127.0.0.1", {"forwarded": '"' * 100 + "for=6.6.6.6"}, None),
        ("127.0.0.1", {"x-forwarded-for": " , "}, None),
        (None, {"x-forwarded-for": "9.9.9.9"}, None),
    ],
)
def test_the_right_most_untrusted_address_is_the_clients(
    peer: str | None, headers: dict[str, str], client: str | None
) -> None:
    assert client_of(peer, headers, TRUSTED) == client


def test_two_headers_that_disagree_are_refused_for_one_of_them_is_the_clients_own() -> None:
    with pytest.raises(InvalidRequest):
        client_of("127.0.0.1", {"forwarded": "for=6.6.6.6", "x-forwarded-for": "9.9.9.9"}, TRUSTED)


def test_the_scheme_is_believed_of_trusted_proxies_only() -> None:
    assert scheme_of("127.0.0.1", "http", {"x-forwarded-proto": "https"}, TRUSTED) == "https"
    assert scheme_of("127.0.0.1", "http", {"x-forwarded-proto": "javascript"}, TRUSTED) == "http"
    assert scheme_of("1.2.3.4", "http", {"x-forwarded-proto": "https"}, TRUSTED) == "http"


def test_an_ipv6_host_counts_as_one_whatever_address_of_its_network_it_takes() -> None:
    assert origin_of("2001:db8:1:2:3:4:5:6") == origin_of("2001:db8:1:2::1") != origin_of("2001:db8:1:3::1")
    assert origin_of("::ffff:1.2.3.4") == "1.2.3.4" == origin_of("1.2.3.4")
    assert origin_of("fe80::1%eth0") == "fe80::/64" and origin_of(None) == ""


def test_headers_that_must_not_occur_twice_are_found_and_lists_are_joined() -> None:
    assert read_headers([(b"accept", b"a"), (b"accept", b"b")]) == ({"accept": "a, b"}, None)
    for name in (b"host", b"authorization", b"origin", b"x-api-key", b"mcp-session-id", b"x-mcpgate-user"):
        assert read_headers([(name, b"a"), (b"b", b"c"), (name, b"a")])[1] == name.decode()
