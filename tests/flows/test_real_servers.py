"""Real servers from npm and PyPI behind one gateway: connect, list, describe, execute.

The six reference servers and ten more, at the versions of benchmarks/servers.py, which also installs them:
`python -m benchmarks.servers install reference ten`. Where they are not installed these tests skip, but not in CI.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks import servers
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from tests.conftest import IN_CI, gateway

pytestmark = pytest.mark.anyio

NAMES = [server.name for server in servers.select(["reference", "ten"])]

CALLS = {
    "everything": ("everything.get_sum(a=20, b=22)", "42"),
    "filesystem": (
        "filesystem.write_file(path='{work}/note.txt', content='kept')\n"
        "filesystem.read_text_file(path='{work}/note.txt')['content']",
        "kept",
    ),
    "memory": (
        "memory.create_entities(entities=[{'name': 'Ada', 'entityType': 'person', 'observations': ['wrote notes']}])\n"
        "memory.search_nodes(query='Ada')['entities'][0]['observations'][0]",
        "wrote notes",
    ),
    "git": ("git.git_status(repo_path='{work}/repo')", "branch"),
    "time": (
        "time.convert_time(source_timezone='UTC', time='12:00', target_timezone='Asia/Tokyo')['time_difference']",
        "+9.0h",
    ),
    "sqlite": (
        "sqlite.create_table(query='create table if not exists t (n int)')\n"
        "sqlite.write_query(query='insert into t values (41)')\nsqlite.read_query(query='select max(n)+1 as m from t')",
        "42",
    ),
    "sequential-thinking": (
        "sequential_thinking.sequentialthinking(thought='t', nextThoughtNeeded=False, thoughtNumber=1, totalThoughts=1)",
        "thoughtNumber",
    ),
    "word": (
        "word.create_document(filename='{work}/a.docx')\n"
        "word.add_paragraph(filename='{work}/a.docx', text='a real paragraph')\n"
        "word.get_document_text(filename='{work}/a.docx')",
        "a real paragraph",
    ),
    "excel": (
        "excel.create_workbook(path='{work}/a.xlsx', overwrite=True)\n"
        "excel.write_range(path='{work}/a.xlsx', sheet='Sheet1', at='A1', rows=[[1, 2], [3, 39]])\n"
        "str(excel.read_range(path='{work}/a.xlsx', sheet='Sheet1'))",
        "39",
    ),
    "docx": ("docx.create_document(output_path='{work}/b.docx')\nstr(docx.get_document_info())", "{"),
    "motherduck": ("motherduck.execute_query(sql='select 6 * 7 as answer')['rows'][0][0]", "42"),
    "mathematics": ("str(mathematics.calculate_expression(expr='6 * 7'))", "42"),
    "calc": ("str(calc.math(expression='6 * 7'))", "42"),
    "fast-fs": (
        "fast_fs.fast_write_file(path='{work}/f.txt', content='fast')\n"
        "str(fast_fs.fast_read_file(path='{work}/f.txt'))",
        "fast",
    ),
    "git-cyanheads": ("git_cyanheads.git_status(path='{work}/repo')['currentBranch']", "main"),
    "treesitter": ("str(treesitter.register_project_tool(path='{work}/repo', name='repo'))", "repo"),
}
"""For each server, a program that really calls it, and text that its answer contains."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def opened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gateway, Path]]:
    missing = [name for name in NAMES if not servers.is_installed(servers.SERVERS[name])]
    if missing or not shutil.which("node"):
        reason = f"not installed: {', '.join(missing) or 'node'}; python -m benchmarks.servers install reference ten"
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    work = tmp_path_factory.mktemp("work")
    (work / "repo").mkdir()
    subprocess.run(["git", "init", "-q", "-b", "main", str(work / "repo")], check=True)
    launch = servers.mcp_servers(servers.select(["reference", "ten"]), work)
    storage = {"url": f"sqlite:///{work / 'kept.sqlite3'}"}
    async with gateway({name: dict(entry) for name, entry in launch.items()}, storage=storage) as it:
        yield it, work


async def test_all_of_them_connect_side_by_side(opened: tuple[Gateway, Path]) -> None:
    states = {view.name: (view.state, view.reason) for view in opened[0].pool.views()}
    assert states == {name: ("ready", "") for name in NAMES}
    assert len(opened[0].catalog.tools) > 450


@pytest.mark.parametrize("name", NAMES)
async def test_each_lists_describes_and_executes(name: str, opened: tuple[Gateway, Path]) -> None:
    app, work = opened
    (server,) = [server for server in app.catalog.servers if server.name == name]
    listing = await app.metatools.list_tools(RequestContext(LOCAL), server=name)
    assert server.tools[0].ident in listing
    for tool in server.tools:
        assert f"def {tool.ident}(" in await app.metatools.describe_tools(RequestContext(LOCAL), [tool.qualified])
    code, expected = CALLS[name]
    answer = await app.metatools.execute_code(RequestContext(LOCAL), code.replace("{work}", str(work)))
    assert not answer.is_error and expected in answer.text, answer.text


async def test_one_execution_joins_many_servers(opened: tuple[Gateway, Path]) -> None:
    code = """
total, answer, now = await asyncio.gather(
    everything.get_sum(a=1, b=2),
    motherduck.execute_query(sql="select 40 + 2"),
    time.convert_time(source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo"),
)
memory.create_entities(entities=[{"name": "sum", "entityType": "number", "observations": [total]}])
[memory.search_nodes(query="sum")["entities"][0]["name"], answer["rows"][0][0], now["time_difference"]]
"""
    answer = await opened[0].metatools.execute_code(RequestContext(LOCAL), code)
    assert answer.text == '["sum",42,"+9.0h"]'
