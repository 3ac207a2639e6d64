"""The documentation is true: its commands exist, its snippets are valid and run, its messages are the code's, its links
lead somewhere, its claims are bounded."""

import ast
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from mcpgate import errors
from mcpgate.cli import clients, main
from mcpgate.config.files import parse_config
from mcpgate.config.settings import Config
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from tests.conftest import IN_CI, gateway

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "servers.example.yaml").read_text(encoding="utf-8")
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(ROOT / name for name in ("examples/README.md", "benchmarks/README.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    )
}
each_document = pytest.mark.parametrize("document", DOCUMENTS)


def blocks(language: str, *names: str) -> Iterator[tuple[str, str]]:
    """The code blocks of a language, each with the place where it stands."""
    for name in names or DOCUMENTS:
        for found in re.finditer(rf"^```{language}\n(.*?)^```$", DOCUMENTS[name], re.MULTILINE | re.DOTALL):
            yield f"{name}:{DOCUMENTS[name].count(chr(10), 0, found.start()) + 1}", found[1]


def test_the_example_is_valid() -> None:
    config = parse_config(EXAMPLE, "servers.example.yaml", {})
    assert set(config.mcpServers) == {"files", "tracker", "docs"}


def test_the_example_shows_every_setting() -> None:
    def keys(annotation: Any) -> set[str]:
        """The settings of a model, and of every model inside it."""
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = annotation.model_fields
            return set(fields).union(*(keys(field.annotation) for field in fields.values()))
        return set().union(*map(keys, get_args(annotation)))

    written = set(re.findall(r"[A-Za-z_]\w*(?=:)", EXAMPLE))
    assert keys(Config) - written == set()


def test_the_examples_defaults_are_the_defaults() -> None:
    data = yaml.safe_load(EXAMPLE)
    plain = Config()
    shown_in_use = ("customers", "teams", "users", "keys", "budgets", "rate_limits", "report_metadata")
    for section in ("code_mode", "sandbox", "governance", "server", "telemetry"):
        for key, value in data[section].items():
            if section == "governance" and (*shown_in_use, "require_key", "execution_usd_per_s").count(key):
                continue
            default = getattr(getattr(plain, section), key)
            if default is not None:
                assert value == (list(default) if isinstance(default, tuple) else default), f"{section}.{key}"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_the_readme_has_exactly_two_set_up_commands_each_on_one_line() -> None:
    set_ups = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert len(set_ups) == 2
    assert set_ups[0].endswith("mcpgate demo") and set_ups[1].endswith("-m pytest")


def test_the_readmes_figures_are_those_of_the_benchmark_pages() -> None:
    table = README.partition("## Measured")[2].partition("2026-")[0]
    pages = "".join(text for name, text in DOCUMENTS.items() if name.startswith("docs/benchmarks/"))
    figures = [f for f in re.findall(r"\d[\d,]*\.?\d*", re.sub(r"\(×[\d.,]+\)", "", table)) if len(f) > 2]
    assert len(figures) > 30
    assert [figure for figure in figures if figure not in pages] == []


def test_no_document_installs_the_other_project_of_that_name() -> None:
    wrong = re.compile(r"(pip3?|uv|uvx|pipx)( \w+)*( -\S+)* [\"']?mcpgate(?![-\w])")
    assert [name for name, text in DOCUMENTS.items() if wrong.search(text)] == []


@each_document
def test_every_link_leads_somewhere(document: str) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`(?!\])", "", DOCUMENTS[document], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


def test_every_command_line_in_a_document_is_one_that_mcpgate_takes() -> None:
    tried = 0
    for where, block in blocks("sh"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            for command in re.split(r"\||&&|;", line):
                words = shlex.split(command, comments=True)
                words = words[: words.index(">")] if ">" in words else words
                if not words or Path(words[0]).name != "mcpgate":
                    continue
                tried += 1
                try:
                    main.parser(words[1:]).parse_args(words[1:])
                except SystemExit as end:
                    assert not end.code, f"{where}: {line}"
    assert tried > 25


@each_document
def test_every_command_that_a_text_names_exists(document: str) -> None:
    for command in re.findall(r"`mcpgate ([a-z]\w*)", DOCUMENTS[document]):
        assert command in main.COMMANDS, command


def test_every_short_name_that_contributing_uses_is_one_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", DOCUMENTS["CONTRIBUTING.md"], re.MULTILINE))
    assert len(named) >= 5
    assert named - targets == set()


def test_every_yaml_snippet_is_a_valid_configuration() -> None:
    snippets = list(blocks("yaml"))
    assert len(snippets) >= 8
    for where, snippet in snippets:
        parse_config(snippet, where, {})


def test_every_json_and_toml_snippet_is_valid() -> None:
    for _, snippet in blocks("json"):
        json.loads(snippet)
    for _, snippet in blocks("toml"):
        tomllib.loads(snippet)


@pytest.mark.parametrize("name", clients.clients())
def test_the_quick_start_has_each_agents_entry_as_install_writes_it(name: str, tmp_path: Path) -> None:
    client = clients.clients({"HOME": str(tmp_path)})[name]
    section = DOCUMENTS["docs/quick-start.md"].partition(f"### {client.title}\n")[2].partition("\n### ")[0]
    assert f"`mcpgate install {name}`" in section
    assert client.files[0].name in section
    first = re.search(r"```(json|toml)\n(.*?)```", section, re.DOTALL)
    assert first is not None
    shown = json.loads(first[2]) if first[1] == "json" else tomllib.loads(first[2])
    ours = {"command": "/path/to/.venv/bin/mcpgate", "args": ["serve", "--stdio", "-c", "/path/to/mcpgate.yaml"]}
    assert shown == {client.key: {"mcpgate": client.entry(ours)}}


@pytest.mark.anyio
async def test_the_programs_of_the_code_mode_guide_run() -> None:
    server = shutil.which("mcp-server-time", path=str(Path(sys.executable).parent))
    if server is None:
        (pytest.fail if IN_CI else pytest.skip)("mcp-server-time is not installed: the extra `demo` has it")
    programs = list(blocks("python", "docs/guides/code-mode.md"))
    assert len(programs) >= 2
    async with gateway({"time": {"command": server, "args": ["--local-timezone=UTC"]}}) as opened:
        for where, program in programs:
            answer = await opened.metatools.execute_code(RequestContext(LOCAL), program)
            assert not answer.is_error, f"{where}: {answer.text}"


def test_every_message_of_the_troubleshooting_page_is_one_that_the_code_has() -> None:
    templates = [re.compile(pattern) for pattern in _messages_of_the_code()]
    lines = [line for _, block in blocks("text", "docs/guides/troubleshooting.md") for line in block.splitlines()]
    assert len(lines) >= 30
    for line in lines:
        assert any(template.search(line) for template in templates), line


def _messages_of_the_code() -> Iterator[str]:
    """A pattern for each text in the code that is long enough to be recognized; where a value goes, anything fits."""
    for folder in ("mcpgate", "sandbox/mcpgate_sandbox"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
            inside = {id(part) for text in joined for part in text.values}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                    parts = re.split(r"%\w+", node.value)  # of the log
                elif isinstance(node, ast.JoinedStr):
                    whole = [str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    parts = re.split("\0+", "".join(whole))
                else:
                    continue
                if len(max(parts, key=len)) >= 12:
                    yield ".*".join(re.escape(part) for part in parts)


def test_every_section_of_the_troubleshooting_page_says_cause_and_remedy() -> None:
    sections = re.split(r"^### ", DOCUMENTS["docs/guides/troubleshooting.md"], flags=re.MULTILINE)[1:]
    assert len(sections) >= 15
    for section in sections:
        assert "**Cause.**" in section and "**Remedy.**" in section, section.splitlines()[0]


REJECTED = (
    "catalogue",
    "ceiling",
    "strangers",
    "in a row",
    "beside",
    "take over",
    "takes over",
    "stands twice",
    "anew",
)
"""Words that read like a translation, or that have a field term."""


@each_document
def test_documents_use_the_terms_of_the_field(document: str) -> None:
    text = DOCUMENTS[document].replace("--catalogues", "")
    assert [word for word in REJECTED if re.search(rf"\b{word}\b", text)] == []


def test_every_error_is_in_the_drawn_tree_with_its_code_and_status() -> None:
    drawing = errors.__doc__ or ""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.McpgateError) and kind is not errors.McpgateError:
            assert re.search(rf"{kind.__name__}\s+\({kind.code}, {kind.http_status}\)", drawing), kind.__name__


def test_the_lock_names_versions_and_no_registry() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "mcp==" in lock and "://" not in lock and "@ file" not in lock
