"""Package build: makes the sandbox's Wasm component where it is missing or out of date, and puts it in the wheel."""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SANDBOX = Path("sandbox") / "mcpgate_sandbox"


class ComponentHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        path = Path(self.root) / SANDBOX / "recipe.py"
        spec = importlib.util.spec_from_file_location("recipe", path)
        assert spec is not None and spec.loader is not None
        recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(recipe)
        if recipe.is_stale():
            self.app.display_info("building the sandbox component")
            recipe.build()
        if version != "editable":
            for name in ("guest.wasm", "guest.sha256"):
                build_data["force_include"][str(Path(self.root) / SANDBOX / name)] = f"mcpgate_sandbox/{name}"
