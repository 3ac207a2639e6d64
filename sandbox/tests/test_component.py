"""Compiled code is made once, kept privately, and never loaded unless it is what its writer wrote."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mcpgate_sandbox
from mcpgate_sandbox import component as artefact
from mcpgate_sandbox.errors import SandboxUnavailable
from mcpgate_sandbox.wasm import WasmEngine
from sandbox.tests.conftest import Run

pytestmark = pytest.mark.anyio

LOAD = """
import sys
from pathlib import Path
from mcpgate_sandbox import component
component.COMPONENT = Path(sys.argv[1])
component.load(component.new_engine(), lambda text: print(text, flush=True))
print("loaded")
"""


def start(cache: Path, temporary: Path, component: Path = artefact.COMPONENT) -> "subprocess.Popen[str]":
    """A process that loads a component, and prints what it hears of the progress."""
    paths = [str(Path(mcpgate_sandbox.__file__).parents[1]), *sys.path]
    environment = {
        **os.environ,
        "MCPGATE_CACHE_DIR": str(cache),
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(component)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    out, errors = process.communicate(timeout=120)
    return out + errors


def load(cache: Path, temporary: Path, component: Path = artefact.COMPONENT) -> str:
    return finish(start(cache, temporary, component))


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A cache folder that three processes filled at the same time, and what they said."""
    folder = tmp_path_factory.mktemp("race") / "new" / "cache"
    processes = [start(folder, tmp_path_factory.mktemp("tmp")) for _ in range(3)]
    yield folder, [finish(process) for process in processes]
    shutil.rmtree(folder.parent)


@pytest.fixture
def cache(race: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A cache folder of one's own, filled without compiling."""
    return _copy(race[0], tmp_path / "cache")


def _copy(source: Path, target: Path) -> Path:
    target.mkdir(mode=0o700)
    for path in source.iterdir():
        shutil.copy2(path, target)
    return target


def _compiled(cache: Path) -> Path:
    (file,) = cache.glob("guest-*.cwasm")
    return file


async def test_processes_that_start_together_compile_once(race: tuple[Path, list[str]]) -> None:
    _, said = race
    assert [text.splitlines()[-1] for text in said] == ["loaded"] * 3
    assert sum("sandbox compiled in" in text for text in said) == 1


async def test_a_new_cache_folder_is_private_and_holds_nothing_half_done(race: tuple[Path, list[str]]) -> None:
    folder, _ = race
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.suffix for path in folder.iterdir()) == [".cwasm", ".lock", ".sha256"]
    assert _compiled(folder).stat().st_mode & 0o077 == 0
    digest = hashlib.sha256(_compiled(folder).read_bytes()).hexdigest()
    assert _compiled(folder).with_suffix(".sha256").read_text() == digest


async def test_a_filled_cache_is_used_as_it_is(cache: Path, tmp_path: Path) -> None:
    before = _compiled(cache).stat()
    assert load(cache, tmp_path) == "loaded\n"
    assert _compiled(cache).stat().st_mtime_ns == before.st_mtime_ns


async def test_what_was_compiled_runs(cache: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("MCPGATE_CACHE_DIR", str(cache))
    engine = WasmEngine(warm=0)
    try:
        assert (await run("1 + 1", on=engine)).result == 2
    finally:
        await engine.aclose()


async def test_a_damaged_file_is_recompiled(tmp_path: Path) -> None:
    cache, empty = tmp_path / "cache", tmp_path / "empty.wasm"
    empty.write_bytes(b"\0asm\x0d\0\1\0")  # a component that compiles at once
    load(cache, tmp_path, empty)
    file = _compiled(cache)
    whole = file.read_bytes()
    file.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    said = load(cache, tmp_path, empty)
    assert "sandbox compiled in" in said and said.endswith("loaded\n")
    assert file.read_bytes() == whole
    assert load(cache, tmp_path, empty) == "loaded\n"


@pytest.mark.parametrize("checksum", ["", "0", "0" * 64, None, "short"])
async def test_a_file_without_its_right_checksum_is_not_loaded(checksum: str | None, cache: Path) -> None:
    beside = _compiled(cache).with_suffix(".sha256")
    whole = beside.read_text()
    if checksum is None:
        beside.unlink()
    else:
        beside.write_text(whole[:32] if checksum == "short" else checksum)
    engine = artefact.new_engine()
    assert artefact._open_verified(_compiled(cache), engine) is None
    beside.write_text(whole)
    assert artefact._open_verified(_compiled(cache), engine) is not None


async def test_a_file_that_is_not_compiled_code_is_not_loaded_even_with_its_checksum(cache: Path) -> None:
    file = _compiled(cache)
    file.write_bytes(b"nothing of the kind")
    file.with_suffix(".sha256").write_text(hashlib.sha256(file.read_bytes()).hexdigest())
    assert artefact._open_verified(file, artefact.new_engine()) is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="has no owners and modes")
async def test_a_folder_that_others_can_write_to_is_made_private_and_its_files_are_not_trusted(cache: Path) -> None:
    artefact._make_private(cache)
    assert len(list(cache.iterdir())) == 3
    cache.chmod(0o777)
    artefact._make_private(cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="has no owners and modes")
@pytest.mark.parametrize("kind", ["a file", "below a file", "a kernel's folder", "read-only"])
async def test_a_cache_folder_that_cannot_be_written_is_replaced_by_a_temporary_one(
    kind: str, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if kind == "read-only" and os.getuid() == 0:
        pytest.skip("root may write everywhere")
    chosen = {"a file": file, "below a file": file / "x", "a kernel's folder": Path("/proc/x"), "read-only": locked}[
        kind
    ]
    cache.rename(tmp_path / f"mcpgate-{os.getuid()}")
    assert load(chosen, tmp_path) == "loaded\n"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="has no owners and modes")
async def test_where_nothing_can_be_written_every_folder_tried_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    (tmp_path / f"mcpgate-{os.getuid()}").touch()
    said = load(tmp_path / "cache", tmp_path)
    assert "SandboxUnavailable: the sandbox could not be compiled; tried" in said
    assert str(tmp_path / "cache") in said and str(tmp_path / f"mcpgate-{os.getuid()}") in said


async def test_a_missing_component_says_how_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(artefact, "COMPONENT", tmp_path / "guest.wasm")
    engine = WasmEngine(warm=0)
    for start_up in (engine.ready(), engine.modules(), run("1", on=engine)):
        with pytest.raises(SandboxUnavailable, match=r"guest\.wasm is not built; run `mcpgate sandbox build`"):
            await asyncio.wait_for(start_up, 10)
    await engine.aclose()


async def test_a_component_that_does_not_compile_says_what_the_compiler_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guest.wasm").write_bytes(b"not wasm")
    monkeypatch.setattr(artefact, "COMPONENT", tmp_path / "guest.wasm")
    monkeypatch.setenv("MCPGATE_CACHE_DIR", str(tmp_path / "cache"))
    engine = WasmEngine(warm=0)
    with pytest.raises(SandboxUnavailable, match=r"(?s)compiling failed with exit code 1: .*"):
        await asyncio.wait_for(engine.ready(), 60)
    await engine.aclose()


@pytest.mark.parametrize("beside", [None, "", "x", f"{'0' * 64} 999", f"{'0' * 64} many"])
async def test_a_digest_that_does_not_belong_to_the_component_is_not_used(
    beside: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    component = tmp_path / "guest.wasm"
    component.write_bytes(b"some wasm")
    if beside is not None:
        component.with_suffix(".sha256").write_text(beside)
    monkeypatch.setattr(artefact, "COMPONENT", component)
    assert artefact._component_digest() == hashlib.sha256(b"some wasm").hexdigest()
