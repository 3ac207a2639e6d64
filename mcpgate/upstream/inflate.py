"""Decompresses bodies that a server compressed although we asked it not to. Output comes in pieces of bounded size,
whatever the input. Pure."""

import zlib
from collections.abc import Iterator

_PIECE = 64 * 1024
_MAX_BARREN = 1024 * 1024
"""Input bytes that may produce no output."""


class Undecodable(ValueError):
    """A body that cannot be decoded."""


class Inflate:
    """Decodes one body of content-encoding gzip or deflate."""

    def __init__(self, encoding: str) -> None:
        """Raises Undecodable for other encodings."""
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise Undecodable(f"its content-encoding is {encoding[:50]!r}, and identity was asked for")
        self._gzip = encoding != "deflate"
        self._decoder = self._new()
        self._begun = False
        self._barren = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._barren += len(data)
        while data:
            if self._decoder.eof:
                if not self._gzip or not data.strip(b"\0"):
                    return  # trailing data is not part of it
                self._decoder = self._new()
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
                self._barren = len(data)
                yield piece
            elif not self._decoder.eof:
                break
        if self._barren > _MAX_BARREN:
            raise Undecodable("its compressed body holds nothing")

    def _new(self) -> "zlib._Decompress":
        return zlib.decompressobj(zlib.MAX_WBITS | 16 if self._gzip else zlib.MAX_WBITS)
