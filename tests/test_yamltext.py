"""Members are added to YAML text; what a person wrote stays."""

import pytest
import yaml

from mcpgate.config.files import parse
from mcpgate.config.yamltext import with_members

NEW = {"n": {"command": "z", "args": ["1.10", "0755"], "env": {"A": "a: b\nc", "é": "x #y"}}}
LONG = """# mine
mcpServers:
    a: {command: x}  # one
    b:
        command: y
        args:
          - -y
          - 1.10 # last
    # nothing follows

# The gateway's own
server: {port: 9000}
"""


def test_members_come_below_the_last_one_and_above_the_comments_of_what_follows() -> None:
    added = with_members(LONG, "mcpServers", {"n": {"command": "z"}})
    assert added == LONG.replace("# last\n", "# last\n    n:\n      command: z\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "k:\n  n: 1\n"),
        ("# only this", "# only this\nk:\n  n: 1\n"),
        ("a: 1", "a: 1\nk:\n  n: 1\n"),
        ("a: 1\n# the end\n", "a: 1\nk:\n  n: 1\n# the end\n"),
        ("k: # mine\na: 1\n", "k: # mine\n  n: 1\na: 1\n"),
        ("k: null # mine\n", "k:  # mine\n  n: 1\n"),
        ("k: {} # mine\n", "k: {n: 1} # mine\n"),
        ("k: {a: [1, 2]} # mine\n", "k: {a: [1, 2], n: 1} # mine\n"),
        ("k: {\n  a: b, # last\n}\n", "k: {\n  a: b, n: 1, # last\n}\n"),
        ("k: {a: }\n", "k: {a:, n: 1 }\n"),
        ("{a: 1}", "{a: 1, k: {n: 1}}"),
        (
            "x: &x {y: 1}\nk:\n  a: *x # it\n\n# next\nb: 1\n",
            "x: &x {y: 1}\nk:\n  a: *x # it\n  n: 1\n\n# next\nb: 1\n",
        ),
    ],
)
def test_members_are_written_in_the_style_of_the_place(text: str, expected: str) -> None:
    assert with_members(text, "k", {"n": 1}) == expected


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        "---\nk:\n  a: {command: x}\n...\n",
        "k:\n  a:\n    command: sh\n    args:\n      - -c\n      - |\n        echo hi\n        echo ho\n\n# n\nb: 1\n",
        "k:\n  a:\n    description: >-\n      folded\n      text",
        "k:\n  a:\n    description: plain\n      goes on\nb: {}\n",
        "k:\n  a:\n    env:\n",
        "k:\n  a: {args: [a,\n     b]}\nb: 1\n",
        "k: &all\n  a: 1\nb: *all\n",
        "? k\n: a: 1\n",
    ],
)
def test_nothing_but_the_new_members_is_added(text: str) -> None:
    key = "mcpServers" if "mcpServers" in text else "k"
    before, added = parse(text), with_members(text, key, NEW)
    after = parse(added)
    expected = {**before[key], **NEW}
    assert after[key] == expected and after.keys() == before.keys()
    kept = iter(added.splitlines())
    assert [line for line in text.splitlines() if not any(line in other for other in kept)] == []


def test_a_value_that_is_no_mapping_gets_no_members() -> None:
    for text in ("k: [1]\n", "k: text\n", "- k\n"):
        with pytest.raises(ValueError, match="no mapping"):
            with_members(text, "k", NEW)
    with pytest.raises(yaml.YAMLError):
        with_members("k: {", "k", NEW)
