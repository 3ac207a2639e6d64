"""Decompresses bodies: requests, and answers of servers that compressed though we asked them not to. Output comes in
pieces of bounded size, whatever the input. Pure."""

import functools
import importlib
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

_PIECE = 64 * 1024
_MAX_BARREN = 1024 * 1024
"""Input bytes that may produce no output."""
_FREE_PARTS, _PART_BYTES = 1000, 100
"""A body may be so many compressed ones in a row; if it is more, they bring so many bytes each. A decoder for each byte
would take seconds."""
_ZSTD_WINDOW = 23
"""Log2 of the bytes that a decoder of zstd keeps for looking back; what RFC 8878 says that all should support."""


class Undecodable(ValueError):
    """A body that cannot be decoded."""


class UnknownEncoding(Undecodable):
    """A content-encoding that nothing here decodes."""


class Inflate(Protocol):
    """Decodes one body."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What more of the body is in plain. Raises Undecodable."""
        ...


def encodings() -> tuple[str, ...]:
    """Every content-encoding that can be decoded here."""
    return ("gzip", "deflate", *(("br",) if _brotli() else ()), *(("zstd",) if _zstd() else ()))


def inflate_of(encoding: str) -> Inflate:
    """The decoder of a content-encoding. Raises UnknownEncoding."""
    if encoding == "zstd" and (zstd := _zstd()) is not None:
        return _Zstd(zstd)
    if encoding == "br" and (brotli := _brotli()) is not None:
        return _Brotli(brotli)
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnknownEncoding(f"its content-encoding is {encoding[:50]!r}; {', '.join(encodings())} can be decoded")
    return _Zlib(encoding != "deflate")


@functools.cache
def _zstd() -> Any:
    """The module, if it is there: part of Python 3.14, else of the extra `zstd`."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    return None


@functools.cache
def _brotli() -> Any:
    """The module, if the extra `brotli` is there. Versions before 1.2 cannot limit their output."""
    try:
        module = importlib.import_module("brotli")
        return module if hasattr(module.Decompressor, "can_accept_more_data") else None
    except ImportError:
        return None


class _Decoder:
    """What all have in common."""

    def __init__(self) -> None:
        self._decoder = self._new()
        self._barren = 0
        self._parts = self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        # In slices: what a decoder has left of its input is copied each time.
        for at in range(0, len(data), _PIECE):
            yield from self._fed(data[at : at + _PIECE])

    def _fed(self, data: bytes) -> Iterator[bytes]:
        raise NotImplementedError

    def _new(self) -> Any:
        raise NotImplementedError

    def _another(self) -> None:
        """Begin with another body, which follows the one that has ended. Raises Undecodable."""
        self._parts += 1
        if self._parts > _FREE_PARTS and self._size < self._parts * _PART_BYTES:
            raise Undecodable("its compressed body is in too many parts")
        self._decoder = self._new()

    def _check(self) -> None:
        if self._barren > _MAX_BARREN:
            raise Undecodable("its compressed body holds nothing")


class _Zlib(_Decoder):
    """gzip or deflate."""

    def __init__(self, gzip: bool) -> None:
        self._gzip = gzip
        super().__init__()
        self._begun = False

    def _fed(self, data: bytes) -> Iterator[bytes]:
        self._barren += len(data)
        while data:
            if self._decoder.eof:
                if not self._gzip or not data.strip(b"\0"):
                    return  # trailing data is not part of it
                self._another()
            try:
                piece = self._decoder.decompress(data, _PIECE)
            except zlib.error as error:
                if self._gzip or self._begun:
                    raise Undecodable(f"its compressed body is broken: {error}") from error
                # Some servers send the raw format.
                self._begun, self._decoder = True, zlib.decompressobj(-zlib.MAX_WBITS)
                continue
            self._begun = True
            data = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
            if piece:
                self._barren, self._size = len(data), self._size + len(piece)
                yield piece
            elif not self._decoder.eof:
                break
        self._check()

    def _new(self) -> "zlib._Decompress":
        return zlib.decompressobj(zlib.MAX_WBITS | 16 if self._gzip else zlib.MAX_WBITS)


class _Zstd(_Decoder):
    def __init__(self, zstd: Any) -> None:
        self._zstd = zstd
        super().__init__()

    def _fed(self, data: bytes) -> Iterator[bytes]:
        self._barren += len(data)
        while data or not (self._decoder.needs_input or self._decoder.eof):
            if self._decoder.eof:
                self._another()
            try:
                piece = self._decoder.decompress(data, _PIECE)
            except self._zstd.ZstdError as error:
                raise Undecodable(f"its compressed body is broken: {error}") from error
            data = self._decoder.unused_data if self._decoder.eof else b""
            if piece:
                self._barren, self._size = len(data), self._size + len(piece)
                yield piece
            else:
                self._check()
        self._check()

    def _new(self) -> Any:
        option = self._zstd.DecompressionParameter.window_log_max
        return self._zstd.ZstdDecompressor(options={option: _ZSTD_WINDOW})


class _Brotli(_Decoder):
    """Its window is 16 MiB at most: the decoder refuses larger ones."""

    def __init__(self, brotli: Any) -> None:
        self._brotli = brotli
        super().__init__()

    def _fed(self, data: bytes) -> Iterator[bytes]:
        self._barren += len(data)
        while not self._decoder.is_finished():  # trailing data is not part of it
            try:
                output = self._decoder.process(data, output_buffer_limit=_PIECE)
            except self._brotli.error as error:
                raise Undecodable(f"its compressed body is broken: {error}") from error
            data = b""
            if output:
                self._barren = 0
            for at in range(0, len(output), _PIECE):  # the limit is not exact
                yield output[at : at + _PIECE]
            if self._decoder.can_accept_more_data() and not output:
                break
        self._check()

    def _new(self) -> Any:
        return self._brotli.Decompressor()
