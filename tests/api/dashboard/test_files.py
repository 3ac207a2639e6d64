"""The files of the dashboard."""

import hashlib
import re
from pathlib import Path

import pytest

from mcpgate.api.dashboard import face

STATIC = Path(face.__file__).with_name("static")
OWN = [path for path in STATIC.rglob("*.js") if path.parent.name != "vendor"]


def test_the_files_of_others_are_those_that_the_table_says() -> None:
    table = (STATIC / "vendor" / "README.md").read_text(encoding="utf-8")
    rows = [
        line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ") and "sha256" not in line
    ]
    listed = {name: digest.strip("`") for name, *_, digest in rows}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (STATIC / "vendor").glob("*.js")}
    assert listed == found
    assert all((STATIC / "vendor" / f"{row[1].split()[0]}.LICENSE.txt").exists() for row in rows)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_no_text_becomes_markup_or_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:|https?://(?!www\.w3)"
    )
    assert re.findall(forbidden, text.split("\n", 1)[1] if path.name == "dom.js" else text) == []


def test_every_module_that_is_imported_is_there() -> None:
    for path in OWN:
        for name in re.findall(r'from "(\.[^"]+)"', path.read_text(encoding="utf-8")):
            assert (path.parent / name).exists(), f"{path.name} imports {name}"
