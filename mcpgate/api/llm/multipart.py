"""multipart/form-data, read while it comes: which fields it has, and what is in its file."""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from mcpgate.errors import InvalidRequest

_LONGEST_FIELD = 1000
"""Bytes of a field that is no file, and of the headers of a part."""
_MOST_PARTS = 20


class Form:
    """One form."""

    def __init__(self, content_type: str) -> None:
        """Raises InvalidRequest."""
        _, options = parse_options_header(content_type.encode("latin-1"))
        self.fields: dict[str, str] = {}
        """Those that have come to their end; files are not in it."""
        self.filename: str | None = None
        """None until the file has begun."""
        self.is_over = False
        self._parts = 0
        self._headers: list[tuple[bytearray, bytearray]] = []
        self._name, self._is_file, self._text = "", False, bytearray()
        self._found: list[bytes] = []
        try:
            self._parser = MultipartParser(
                options.get(b"boundary", b""),
                {
                    "on_part_begin": self._begin,
                    "on_header_begin": lambda: self._headers.append((bytearray(), bytearray())),
                    "on_header_field": lambda data, start, end: self._headers[-1][0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._headers[-1][1].extend(data[start:end]),
                    "on_headers_finished": self._begun,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._over,
                },
                max_header_size=_LONGEST_FIELD,
            )
        except FormParserError as error:
            raise InvalidRequest(f"the form cannot be read: {error}") from None

    def feed(self, data: bytes) -> list[bytes]:
        """What of the file is in a part of the body. Raises InvalidRequest."""
        self._found = []
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequest(f"the form cannot be read: {error}") from None
        return self._found

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise InvalidRequest(f"the form has over {_MOST_PARTS} parts")
        self._headers, self._name, self._is_file, self._text = [], "", False, bytearray()

    def _begun(self) -> None:
        headers = {bytes(name).lower(): bytes(value) for name, value in self._headers}
        _, options = parse_options_header(headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = b"filename" in options
        if self._is_file:
            if self._name != "file" or self.filename is not None:
                raise InvalidRequest("an upload has one file, whose field is named file")
            self.filename = options[b"filename"].decode("utf-8", "replace")[:255]

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._found.append(bytes(data[start:end]))
            return
        self._text += data[start:end]
        if len(self._text) > _LONGEST_FIELD:
            raise InvalidRequest("a field of the form is too long")

    def _end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = self._text.decode("utf-8", "replace")

    def _over(self) -> None:
        self.is_over = True
