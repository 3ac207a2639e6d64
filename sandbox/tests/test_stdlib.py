"""The guest's standard library is what the engine says it is."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcpgate_sandbox.wasm import WasmEngine

pytestmark = pytest.mark.anyio

Value = Callable[..., Awaitable[Any]]

TRY_TO_IMPORT = """
import importlib
def imports(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
[name for name in {names} if imports(name)]
"""


async def test_every_module_listed_as_available_imports(engine: WasmEngine, value: Value) -> None:
    available, _ = await engine.modules()
    assert await value(TRY_TO_IMPORT.format(names=available)) == available
    assert {"json", "re", "datetime", "sqlite3", "asyncio", "csv", "statistics", "zoneinfo"} <= set(available)


async def test_no_module_listed_as_missing_imports(engine: WasmEngine, value: Value) -> None:
    available, missing = await engine.modules()
    assert await value(TRY_TO_IMPORT.format(names=missing)) == []
    assert {"ctypes", "mmap", "tkinter", "ssl"} <= set(missing)
    assert not set(available) & set(missing)


async def test_a_missing_module_is_an_import_error_that_names_it(run: Any) -> None:
    outcome = await run("import ctypes")
    assert outcome.error.type in ("ModuleNotFoundError", "ImportError")
    assert "ctypes" in outcome.error.message


@pytest.mark.parametrize(
    "module",
    [
        *(
            "collections.abc",
            "concurrent.futures",
            "email.mime.text",
            "html.parser",
            "http.client",
            "importlib.resources",
        ),
        *("json.decoder", "logging.handlers", "os.path", "unittest.mock", "urllib.parse", "xml.dom.minidom"),
        *("xml.etree.ElementTree", "xml.sax.saxutils", "zoneinfo", "email.message", "encodings.cp1252"),
    ],
)
async def test_a_submodule_imports(module: str, value: Value) -> None:
    assert await value(f"import importlib; importlib.import_module({module!r}).__name__") in (module, "posixpath")


async def test_zoneinfo_knows_summer_time(value: Value) -> None:
    code = """
from datetime import datetime
from zoneinfo import ZoneInfo
berlin = ZoneInfo("Europe/Berlin")
[datetime(2026, month, 1, tzinfo=berlin).utcoffset().total_seconds() / 3600 for month in (1, 7)]
"""
    assert await value(code) == [1, 2]


async def test_zoneinfo_lists_its_zones_and_refuses_others(value: Value) -> None:
    code = """
import zoneinfo
try:
    zoneinfo.ZoneInfo("Mars/Olympus")
    known = True
except zoneinfo.ZoneInfoNotFoundError:
    known = False
names = zoneinfo.available_timezones()
[known, len(names) > 400, {"UTC", "Asia/Tokyo", "America/New_York"} <= names]
"""
    assert await value(code) == [False, True, True]


async def test_every_text_encoding_of_cpython_is_there(value: Value) -> None:
    names = "utf-8 utf-16 utf-32 latin-1 cp1252 cp437 iso8859-15 koi8-r mac-roman shift_jis gb18030 big5 euc-kr idna"
    code = f"[name for name in {json.dumps(names.split())} if 'abc'.encode(name).decode(name) == 'abc']"
    assert await value(code) == names.split()
