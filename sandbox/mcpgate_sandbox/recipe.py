"""Builds the guest component: CPython for Wasm with the guest's own modules and the whole importable
standard library in its memory snapshot.

    python -m mcpgate_sandbox.recipe [OUTPUT]

Needs `componentize-py` and `tzdata` from the package index and nothing else: no compiler, no network.
Used by the package build (`hatch_build.py`) and by `mcpgate sandbox build`.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

GUEST = Path(__file__).resolve().parent / "guest"
OUTPUT = GUEST.parent / "guest.wasm"


def build(output: Path = OUTPUT) -> Path:
    """Build the component and put it at `output` in one step. Raises RuntimeError with the builder's words."""
    for module in ("componentize_py", "tzdata"):
        if importlib.util.find_spec(module) is None:
            raise RuntimeError(
                f"building the sandbox component needs {module.replace('_', '-')}: pip install componentize-py tzdata"
            )
    with tempfile.TemporaryDirectory(prefix="mcpgate-guest-") as folder:
        work = Path(folder)
        shutil.copytree(GUEST, work / "guest", ignore=shutil.ignore_patterns("__pycache__"))
        (work / "guest" / "zone_data.py").write_text(f"ZONES = {_zones()!r}\n")
        (work / "empty").mkdir()
        # An empty environment: variables, paths and packages of the building machine must not be frozen
        # into the snapshot. `-I` and VIRTUAL_ENV=<empty folder> keep its site-packages out.
        done = subprocess.run(
            [
                *(sys.executable, "-I", "-c", _BUILDER, str(_folder_of("componentize_py"))),
                *("-d", str(work / "guest" / "world.wit"), "-w", "codemode"),
                *("componentize", "-p", str(work / "guest"), "guest_main", "-o", str(work / "guest.wasm")),
            ],
            env={"PATH": str(work / "empty"), "VIRTUAL_ENV": str(work / "empty"), "HOME": str(work)},
            cwd=work,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"componentize-py failed:\n{done.stdout}\n{done.stderr}")
        wasm = (work / "guest.wasm").read_bytes()
    _check(wasm)
    # The digest saves hashing 40 MB at every start; it names the size so that a stale one is noticed.
    digest = f"{hashlib.sha256(wasm).hexdigest()} {len(wasm)}\n".encode()
    output.parent.mkdir(parents=True, exist_ok=True)
    for path, data in ((output.with_suffix(".sha256"), digest), (output, wasm)):
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_bytes(data)
        beside.replace(path)
    return output


def _check(component: bytes) -> None:
    """Refuse a component that could not be renewed by putting its memory back (recycle.py)."""
    # By its path, as this file is: the package that it belongs to may not be installed yet.
    spec = importlib.util.spec_from_file_location("mcpgate_component_check", GUEST.parent / "component_check.py")
    assert spec is not None and spec.loader is not None
    check = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = check  # dataclasses look their module up
    spec.loader.exec_module(check)
    try:
        found = check.changes(component)
    except check.Unreadable as error:
        raise RuntimeError(f"the component cannot be checked: {error}; see component_check.py") from error
    if found != check.EXPECTED:
        raise RuntimeError(
            f"the component's code can change {', '.join(sorted(found)) or 'nothing'}; expected was "
            f"{', '.join(sorted(check.EXPECTED))}. Look at what is new before component_check.EXPECTED is changed: a "
            "used instance is renewed by putting nothing but its memory back"
        )


def is_stale(output: Path = OUTPUT) -> bool:
    """Whether the component is missing or older than its sources."""
    if not output.exists() or not output.with_suffix(".sha256").exists():
        return True
    built = output.stat().st_mtime
    return any(path.stat().st_mtime > built for path in GUEST.rglob("*") if path.suffix in (".py", ".wit"))


# The builder is found by its folder: an isolated build environment keeps its packages on PYTHONPATH, which the
# builder itself must not see.
_BUILDER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from componentize_py import script; script()"


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent.parent


def _zones() -> dict[str, bytes]:
    import tzdata

    root = Path(tzdata.__file__).parent
    names = (root / "zones").read_text().split()
    return {name: root.joinpath("zoneinfo", *name.split("/")).read_bytes() for name in names}


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT))
