"""What the model reads after an execution."""

import base64
from typing import Any

import pytest

from mcpgate.catalog.catalog import Catalog
from mcpgate.codemode.answers import Answer, Answers
from mcpgate.codemode.handles import HandleStore
from mcpgate.codemode.media import image_type
from mcpgate.config.settings import Config, Settings
from mcpgate.governance.callers import LOCAL
from mcpgate_sandbox.engine import Handle, Outcome
from tests.picture import PICTURE

JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(40)).decode()


class Desk:
    """A handle store, and answers that use it."""

    def __init__(self, **code_mode: Any) -> None:
        self.handles = HandleStore(100, 10_000_000)
        self._answers = Answers(Settings(Config.model_validate({"code_mode": code_mode})), self.handles)

    def keep(self, data: str = PICTURE, kind: str = "image", mime_type: str = "image/png") -> Handle:
        kept = self.handles.keep_data(LOCAL.owner, kind, mime_type, data, None)
        return Handle(kept.id, kept.kind, kept.mime_type, kept.size, kept.uri)

    def answer(self, result: Any, stdout: str = "") -> Answer:
        return self._answers.of(LOCAL, Outcome(result=result, stdout=stdout), Catalog())


def shown(answer: Answer) -> list[str]:
    return [block.get("text") or block.get("mimeType") or block["resource"]["mimeType"] for block in answer.content]


def test_text_and_images_come_back_together_in_the_order_they_stood() -> None:
    desk = Desk()
    answer = desk.answer(["Here it is:", desk.keep(), "and again", "below:", desk.keep()])
    assert shown(answer) == ["Here it is:", "image/png", "and again\nbelow:", "image/png"]
    assert answer.text == "Here it is:\nand again\nbelow:" and len(answer.blocks) == 2


def test_several_results_of_tools_in_a_list_keep_their_images_too() -> None:
    desk = Desk()
    answer = desk.answer([["one", desk.keep()], {"page": 2, "_content": [desk.keep()]}, 3])
    assert shown(answer) == ["one", "image/png", '{"page":2}', "image/png", "3"]


def test_what_was_printed_comes_before_what_was_returned() -> None:
    desk = Desk()
    assert shown(desk.answer(desk.keep(), stdout="looking\n")) == ["looking", "image/png"]


def test_an_image_deep_inside_a_value_is_named_there_as_code_prints_it_and_follows() -> None:
    desk = Desk()
    picture = Handle(desk.keep().id)  # as it comes from the sandbox
    answer = desk.answer({"page": 1, "shots": [{"image": picture}]})
    assert shown(answer) == ['{"page":1,"shots":[{"image":"<image r1: image/png, 70 bytes>"}]}', "image/png"]


def test_more_images_than_a_model_should_read_are_named() -> None:
    desk = Desk(max_result_tokens=100_000)
    answer = desk.answer([desk.keep() for _ in range(21)])
    assert answer.blocks == () and answer.text.count("<image r") == 21


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [(PICTURE, "image/png"), (JPEG, "image/jpeg"), (base64.b64encode(b"GIF89a" + bytes(40)).decode(), "image/gif")],
)
def test_an_image_goes_out_under_the_type_that_its_bytes_have(data: str, mime_type: str) -> None:
    desk = Desk()
    assert shown(desk.answer(desk.keep(data, mime_type="image/webp"))) == [mime_type]


@pytest.mark.parametrize(
    "data",
    [
        "",
        "aGVsbG8=",
        "not base64!",
        "iVBORw0KGgo=",
        base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(),
    ],
)
def test_an_image_that_models_cannot_read_is_reported_as_such(data: str) -> None:
    assert image_type(data) is None
    desk = Desk()
    answer = desk.answer(["look:", desk.keep(data)])
    assert answer.blocks == () and "is not shown" in answer.text and answer.text.startswith("look:")
