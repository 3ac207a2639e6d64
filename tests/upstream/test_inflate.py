"""Compressed bodies, from people who mean no good."""

import gzip
import random
import time
import zlib
from collections.abc import Callable

import brotli
import pytest
from backports import zstd

from mcpgate.upstream import inflate
from mcpgate.upstream.inflate import Undecodable, UnknownEncoding, encodings, inflate_of

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: bytes(brotli.compress(data, quality=1)),
    "zstd": zstd.compress,
}
DATA = bytes(range(256)) * 1000
WAYS = {
    "gzip": gzip.compress(DATA),
    "x-gzip": gzip.compress(DATA[:7]) + gzip.compress(DATA[7:]) + b"\0" * 8,
    "br": brotli.compress(DATA),
    "deflate": zlib.compress(DATA),
    "zstd": zstd.compress(DATA[:7]) + zstd.compress(DATA[7:], options={zstd.CompressionParameter.checksum_flag: 1}),
}


def unpacked(encoding: str, *parts: bytes) -> bytes:
    decoder = inflate_of(encoding)
    return b"".join(piece for part in parts for piece in decoder.feed(part))


@pytest.mark.parametrize("encoding", WAYS)
def test_what_was_compressed_comes_back_however_it_is_cut(encoding: str) -> None:
    body = WAYS[encoding]
    assert unpacked(encoding, body) == DATA
    assert unpacked(encoding, *(body[at : at + 1] for at in range(len(body)))) == DATA


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_comes_in_small_pieces(encoding: str) -> None:
    big = bytes(200_000_000)
    bomb = PACK[encoding](big)
    sizes = [len(piece) for piece in inflate_of(encoding).feed(bomb)]
    assert sum(sizes) == len(big) and max(sizes) <= 64 * 1024


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("damage", ["not at all", "in its checksum", "in its data"])
def test_what_is_broken_is_told(encoding: str, damage: str) -> None:
    bodies = {
        "not at all": b"{} is no compressed body",
        "in its checksum": WAYS[encoding][:-4] + b"nope",
        "in its data": WAYS[encoding][:20] + b"\xff" * 1000,
    }
    with pytest.raises(Undecodable):
        unpacked(encoding, bodies[damage], b"x" * 100_000)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("inner", [b"", b"x"])
def test_a_million_bodies_in_a_row_are_not_one(encoding: str, inner: bytes) -> None:
    small = gzip.compress(inner) if encoding == "gzip" else zstd.compress(inner)
    began = time.process_time()
    with pytest.raises(Undecodable, match="too many parts|holds nothing"):
        unpacked(encoding, small * 1_000_000)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_what_cannot_be_compressed_takes_no_longer_than_it_must(encoding: str) -> None:
    noise = random.Random(1).randbytes(16_000_000)
    body = PACK[encoding](noise)
    began = time.process_time()
    assert unpacked(encoding, body) == noise
    assert time.process_time() - began < 0.5


def test_frames_that_are_skipped_are_not_read_for_ever() -> None:
    with pytest.raises(Undecodable):
        unpacked("zstd", b"\x50\x2a\x4d\x18" + (2**31).to_bytes(4, "little"), *[bytes(65536)] * 100)


def test_a_window_of_a_gigabyte_is_not_kept() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    body = compressor.compress(DATA * 100) + compressor.flush()
    with pytest.raises(Undecodable, match="broken"):
        unpacked("zstd", body)


def test_a_million_empty_blocks_of_brotli_are_not_decoded() -> None:
    with pytest.raises(Undecodable, match="holds nothing"):
        unpacked("br", b"\x0c" + b"\x06" * 2_000_000)


def test_other_encodings_are_named_and_so_is_what_can_be_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("compress", "gzip,gzip", "GZIP", ""):
        with pytest.raises(UnknownEncoding, match="gzip, deflate, br, zstd can be decoded"):
            inflate_of(encoding)
    monkeypatch.setattr(inflate, "_zstd", lambda: None)
    monkeypatch.setattr(inflate, "_brotli", lambda: None)
    assert encodings() == ("gzip", "deflate")
    for encoding in ("zstd", "br"):
        with pytest.raises(UnknownEncoding):
            inflate_of(encoding)
