"""What the bytes of an image really are. Pure.

Once a conversation holds an image whose bytes are not what its type says, a model's API refuses it for good: only what
can be shown goes out as an image.
"""

import base64
import binascii

_PNG, _GIFS, _JPEG = b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a"), b"\xff\xd8\xff"
_SMALLEST = 24
"""Bytes that even a PNG's signature and first chunk take."""


def image_type(data: str) -> str | None:
    """The media type of base64 data that models can be shown: PNG, JPEG, GIF or WebP; None for everything else."""
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
