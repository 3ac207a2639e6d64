"""The generated reference is up to date, and the code that it is made from is documented."""

from typing import Any, get_args

import pytest
from pydantic import BaseModel

from docs import reference
from mcpgate.config.settings import Config
from mcpgate_sandbox.errors import SandboxUnavailable
from tests.conftest import IN_CI


def test_every_page_is_up_to_date() -> None:
    try:
        pages = reference.pages()
    except SandboxUnavailable as error:
        (pytest.fail if IN_CI else pytest.skip)(str(error))
    on_disk = {path.name: path.read_text(encoding="utf-8") for path in reference.FOLDER.glob("*.md")}
    stale = [name for name in pages.keys() | on_disk.keys() if pages.get(name) != on_disk.get(name)]
    assert stale == [], "run: python -m docs.reference"


def test_every_setting_has_a_description() -> None:
    undescribed = []

    def visit(annotation: Any, where: str) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            described = reference.docstrings_of(annotation)
            for name, field in annotation.model_fields.items():
                if name not in described and annotation is not Config:
                    undescribed.append(f"{where}.{name}")
                visit(field.annotation, f"{where}.{name}")
        for part in get_args(annotation):
            visit(part, where)

    visit(Config, "")
    assert undescribed == []
