"""Detects the actual type of an image from its bytes. Pure.

Once a conversation holds an image whose bytes do not match its type, a model's API rejects every further request: only
what can be shown goes out as an image.
"""

import base64
import binascii

_PNG, _GIFS, _JPEG = b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a"), b"\xff\xd8\xff"
_SMALLEST = 24
"""Bytes of a PNG's signature and the start of its first chunk."""


def image_type(data: str) -> str | None:
    """The media type of base64 data that models accept: PNG, JPEG, GIF or WebP; None for everything else."""
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(content) < _SMALLEST:
        return None
    if content.startswith(_PNG):
        width, height = content[16:20], content[20:24]
        return "image/png" if content[12:16] == b"IHDR" and any(width) and any(height) else None
    if content.startswith(_JPEG):
        return "image/jpeg"
    if content.startswith(_GIFS):
        return "image/gif"
    return "image/webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None
