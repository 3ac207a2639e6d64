"""Images and files as the formats write them: in data URLs, or by address. Pure."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from mcpgate.llm.fields import Fields
from mcpgate.llm.messages import File, Image


def data_url(media_type: str, data: str) -> str:
    return f"data:{media_type};base64,{data}"


def url_of(image: Image) -> str:
    return image.url or data_url(image.media_type, image.data)


def parse_image(fields: Fields, name: str, detail: str, cache: Mapping[str, Any] | None = None) -> Image:
    """An image out of a field that holds its URL, which may be a data URL."""
    url = fields.need_text(name)
    if not url.startswith("data:"):
        return Image("", url=url, detail=detail, cache=cache)
    media_type, data = _split(fields, name, url)
    return Image(media_type, data=data, detail=detail, cache=cache)


def parse_file(fields: Fields, name: str, filename: str, cache: Mapping[str, Any] | None = None) -> File:
    """A file out of a field that holds its content as a data URL."""
    url = fields.need_text(name)
    if not url.startswith("data:"):
        fields.wrong(name, "must be a data URL, such as data:application/pdf;base64,...")
    media_type, data = _split(fields, name, url)
    return File(media_type, data=data, name=filename, cache=cache)


def _split(fields: Fields, name: str, url: str) -> tuple[str, str]:
    head, comma, data = url[5:].partition(",")
    media_type, _, coding = head.rpartition(";")
    if not comma or coding.strip().lower() != "base64" or not media_type:
        fields.wrong(name, "must be a data URL with a media type, in base64: data:TYPE;base64,DATA")
    return media_type, data


def decode_text(data: str) -> str:
    """The text of a file. Raises ValueError."""
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ValueError(f"not UTF-8 text in base64: {error}") from None


def encode_text(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "replace")).decode()
