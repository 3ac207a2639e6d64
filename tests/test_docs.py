"""The documentation is true: its commands exist, its example is valid and complete, its claims are bounded."""

import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from mcpgate import errors
from mcpgate.cli.main import COMMANDS
from mcpgate.config.files import parse_config
from mcpgate.config.settings import Config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "servers.example.yaml").read_text(encoding="utf-8")


def test_the_example_is_valid() -> None:
    config = parse_config(EXAMPLE, "servers.example.yaml", {})
    assert set(config.mcpServers) == {"files", "docs"}


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


def test_the_readme_has_exactly_two_set_up_commands_each_on_one_line() -> None:
    set_ups = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert len(set_ups) == 2
    assert set_ups[0].endswith("mcpgate demo") and set_ups[1].endswith("-m pytest")
    assert "pip install mcpgate" not in README


def test_every_command_in_the_readme_exists() -> None:
    for command in re.findall(r"(?:^|`)mcpgate (\w+)", README, re.MULTILINE):
        assert command in COMMANDS, command


def test_every_path_in_the_readme_exists() -> None:
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        assert path.startswith("http") or (ROOT / path).exists(), path


def test_every_error_is_in_the_drawn_tree_with_its_code_and_status() -> None:
    drawing = errors.__doc__ or ""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.McpgateError) and kind is not errors.McpgateError:
            assert re.search(rf"{kind.__name__}\s+\({kind.code}, {kind.http_status}\)", drawing), kind.__name__


def test_the_lock_names_versions_and_no_registry() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "mcp==" in lock and "://" not in lock and "@ file" not in lock
