"""Real MCP servers to measure with: one table of pinned packages, their installation, launch lines and catalogs.

Everything is stored in one cache folder (`MCPGATE_BENCH_DIR`, else the user's cache). Credentials are placeholders: the
servers of `reference` and `ten` work without a service behind them, the rest only list their tools. Catalogs are
captured as the servers sent them, not through the gateway.

    python -m benchmarks.servers install reference
    python -m benchmarks.servers capture discovery
    python -m benchmarks.servers config reference > mcpgate.json
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from benchmarks.services import ServiceMissing, running

_PROTOCOL_VERSION = "2025-11-25"
_START_TIMEOUT_S = 120.0
_MAX_MESSAGE_BYTES = 64 * 2**20
_STAMP = "installed.json"
_NOWHERE = "http://127.0.0.1:9"
"""Stands for a remote API: the discard port, where nothing listens."""


@dataclass(frozen=True)
class Server:
    """How one server is installed and started. In arguments and environment, `{work}` is the scratch folder and
    `{port}` the port of the service it needs."""

    name: str
    package: str
    """`name@version` comes from npm, `name==version` from PyPI."""
    program: str
    """npm: the script inside the package, run by node. PyPI: the console script."""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    """Further requirements, e.g. `mcp<2` for servers written for the SDK's first version."""
    needs: str = ""
    """A service (`benchmarks.services`) without which it does not list its tools."""

    @property
    def is_npm(self) -> bool:
        return "==" not in self.package


def _dummy(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "dummy")


_AWS = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "dummy") | {
    "AWS_ENDPOINT_URL": _NOWHERE,
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "{work}/aws-config",
    "FASTMCP_LOG_LEVEL": "ERROR",
}


# fmt: off
_TABLE = (
    # Work offline.
    Server("everything", "@modelcontextprotocol/server-everything@2026.8.31", "dist/index.js", ("stdio",)),
    Server("filesystem", "@modelcontextprotocol/server-filesystem@2026.8.31", "dist/index.js", ("{work}",)),
    Server("memory", "@modelcontextprotocol/server-memory@2026.8.31", "dist/index.js",
           env={"MEMORY_FILE_PATH": "{work}/memory.jsonl"}),
    Server("git", "mcp-server-git==2026.10.19", "mcp-server-git", ("--repository", "{work}/repo")),
    Server("time", "mcp-server-time==2026.10.19", "mcp-server-time"),
    Server("sqlite", "mcp-server-sqlite==2025.4.25", "mcp-server-sqlite", ("--db-path", "{work}/t.db"),
           also=("mcp<2",)),
    Server("sequential-thinking", "@modelcontextprotocol/server-sequential-thinking@2026.8.31", "dist/index.js"),
    Server("word", "office-word-mcp-server==1.1.11", "word_mcp_server"),
    Server("excel", "excel-mcp-server==2.2.2", "excel-mcp-server", ("stdio",)),
    Server("docx", "docx-mcp-server==0.7.4", "docx-mcp-server", also=("mcp<2",)),
    Server("motherduck", "mcp-server-motherduck==1.1.0", "mcp-server-motherduck",
           ("--db-path", ":memory:", "--read-write")),
    Server("mathematics", "mcp-mathematics==2.3.1", "mcp-mathematics"),
    Server("calc", "@coo-quack/calc-mcp@2.1.1", "dist/index.js"),
    Server("fast-fs", "fast-filesystem-mcp@3.5.2", "dist/index.js", ("{work}",)),
    Server("git-cyanheads", "@cyanheads/git-mcp-server@2.15.3", "dist/index.js",
           env={"MCP_TRANSPORT_TYPE": "stdio", "GIT_SIGN_COMMITS": "false"}),
    Server("treesitter", "mcp-server-tree-sitter==0.7.0", "mcp-server-tree-sitter", also=("mcp<2",)),
    # Calls need a network, a browser or an account; listing tools does not.
    Server("fetch", "mcp-server-fetch==2026.10.24", "mcp-server-fetch"),
    Server("playwright", "@playwright/mcp@0.0.83", "cli.js",
           ("--headless", "--isolated", "--caps", "vision,pdf,testing,tracing,storage,network,devtools")),
    Server("kubernetes", "kubernetes-mcp-server@0.0.67", "bin/index.js",
           ("--toolsets", "core,config,helm,kubevirt"), {"KUBECONFIG": "{work}/kubeconfig"}),
    Server("mongodb", "mongodb-mcp-server@3.0.4", "dist/esm/index.js",
           env=_dummy("MDB_MCP_API_CLIENT_ID", "MDB_MCP_API_CLIENT_SECRET")
           | {"MDB_MCP_TELEMETRY": "disabled", "MDB_MCP_CONNECTION_STRING": "mongodb://127.0.0.1:9/"}),
    Server("github", "@modelcontextprotocol/server-github@2025.4.8", "dist/index.js",
           env=_dummy("GITHUB_PERSONAL_ACCESS_TOKEN")),
    Server("gitlab", "@zereight/mcp-gitlab@2.1.64", "build/index.js",
           env=_dummy("GITLAB_PERSONAL_ACCESS_TOKEN") | {"GITLAB_API_URL": f"{_NOWHERE}/api/v4"}
           | dict.fromkeys(("USE_PIPELINE", "USE_MILESTONE", "USE_GITLAB_WIKI"), "true")),
    Server("linear", "@tacticlaunch/mcp-linear@1.4.3", "dist/index.js", env=_dummy("LINEAR_API_TOKEN")),
    Server("atlassian", "mcp-atlassian==0.23.1", "mcp-atlassian",
           env=_dummy("JIRA_USERNAME", "JIRA_API_TOKEN", "CONFLUENCE_USERNAME", "CONFLUENCE_API_TOKEN")
           | {"JIRA_URL": _NOWHERE, "CONFLUENCE_URL": f"{_NOWHERE}/wiki"}),
    Server("todoist", "@doist/todoist-mcp@11.0.0", "dist/main.js", env=_dummy("TODOIST_API_KEY")),
    Server("slack", "@modelcontextprotocol/server-slack@2025.4.25", "dist/index.js",
           env=_dummy("SLACK_BOT_TOKEN", "SLACK_TEAM_ID")),
    Server("notion", "@notionhq/notion-mcp-server@2.5.2", "bin/cli.mjs", env=_dummy("NOTION_TOKEN")),
    Server("workspace", "workspace-mcp==2.2.1", "workspace-mcp", ("--transport", "stdio"),
           _dummy("GOOGLE_OAUTH_CLIENT_ID", "GOOGLE_OAUTH_CLIENT_SECRET")),
    Server("hubspot", "@hubspot/mcp-server@0.4.0", "dist/index.js", env=_dummy("PRIVATE_APP_ACCESS_TOKEN")),
    Server("xero", "@xeroapi/xero-mcp-server@0.0.17", "dist/index.js",
           env=_dummy("XERO_CLIENT_ID", "XERO_CLIENT_SECRET")),
    Server("paddle", "@paddle/paddle-mcp@0.1.6", "build/index.js",
           ("--api-key=dummy", "--environment=sandbox", "--tools=all")),
    Server("digitalocean", "@digitalocean/mcp@1.0.70", "index.js", env=_dummy("DIGITALOCEAN_API_TOKEN")),
    Server("grafana", "mcp-grafana==2.1.1", "mcp-grafana", ("-t", "stdio"),
           _dummy("GRAFANA_SERVICE_ACCOUNT_TOKEN") | {"GRAFANA_URL": _NOWHERE}),
    Server("sentry", "@sentry/mcp-server@0.36.0", "dist/index.js", ("--access-token=dummy", "--host=127.0.0.1")),
    Server("cloudinary", "@cloudinary/asset-management-mcp@0.11.0", "bin/mcp-server.js",
           ("start", "--api-key", "1", "--api-secret", "dummy", "--cloud-name", "demo")),
    # A placeholder too: the server checks the form of the token.
    Server("mapbox", "@mapbox/mcp-server@0.2.0", "dist/index.js", env={"MAPBOX_ACCESS_TOKEN": "pk.eyJ1IjoiYSJ9.x"}),
    Server("ha", "ha-mcp==3.5.1", "ha-mcp", env=_dummy("HOMEASSISTANT_TOKEN") | {"HOMEASSISTANT_URL": _NOWHERE}),
    # For catalogs of hundreds and thousands of tools.
    Server("redis", "redis-mcp-server==0.5.1", "redis-mcp-server", ("--url", "redis://127.0.0.1:9/0")),
    Server("postgres-henkey", "@henkey/postgres-mcp-server@1.0.7", "build/index.js",
           ("--connection-string", "postgresql://postgres@127.0.0.1:9/postgres")),
    Server("markitdown", "markitdown-mcp==0.0.1a7", "markitdown-mcp"),
    Server("tooluniverse", "tooluniverse==1.5.7", "tooluniverse-smcp-stdio"),
    Server("hostinger", "hostinger-api-mcp@1.63.2", "src/servers/all.js", env=_dummy("API_TOKEN")),
    Server("ms365", "@softeria/ms-365-mcp-server@0.155.0", "dist/index.js",
           ("--org-mode",), _dummy("MS365_MCP_OAUTH_TOKEN")),
    Server("azure", "@azure/mcp@2.0.5", "index.js",
           ("server", "start", "--mode", "all"),
           {"AZURE_MCP_COLLECT_TELEMETRY": "false", "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}),
    Server("postman", "@postman/postman-mcp-server@2.13.0", "dist/src/index.js",
           ("--full",), {"POSTMAN_API_KEY": "PMAK-dummy"}),
    Server("twilio", "@twilio-alpha/mcp@0.7.0", "build/index.js", (f"AC{'0' * 32}/SK{'0' * 32}:{'x' * 32}",)),
    Server("iterable", "@iterable/mcp@1.9.0", "dist/index.js",
           env=_dummy("ITERABLE_API_KEY")
           | dict.fromkeys(("ITERABLE_USER_PII", "ITERABLE_ENABLE_WRITES", "ITERABLE_ENABLE_SENDS"), "true")),
    Server("healthomics", "awslabs-aws-healthomics-mcp-server==0.1.5", "awslabs.aws-healthomics-mcp-server", env=_AWS),
    Server("backlog", "backlog-mcp-server@0.20.4", "build/index.js",
           env=_dummy("BACKLOG_API_KEY") | {"BACKLOG_DOMAIN": "x.backlog.com"}),
    Server("shortcut", "@shortcut/mcp@0.25.0", "dist/index.js", env=_dummy("SHORTCUT_API_TOKEN")),
    Server("billing", "awslabs-billing-cost-management-mcp-server==0.0.42",
           "awslabs.billing-cost-management-mcp-server", env=_AWS),
    Server("sns-sqs", "awslabs-amazon-sns-sqs-mcp-server==2.1.1", "awslabs.amazon-sns-sqs-mcp-server",
           ("--allow-resource-creation",), _AWS),
    Server("browserstack", "@browserstack/mcp-server@1.4.2", "dist/index.js",
           env=_dummy("BROWSERSTACK_USERNAME", "BROWSERSTACK_ACCESS_KEY")),
    Server("coolify", "@masonator/coolify-mcp@3.5.0", "dist/index.js",
           env=_dummy("COOLIFY_ACCESS_TOKEN") | {"COOLIFY_BASE_URL": _NOWHERE}),
    Server("attio", "attio-mcp@1.6.1", "dist/cli.js", env={"ATTIO_API_KEY": "0" * 64}),
    Server("iotsitewise", "awslabs-aws-iot-sitewise-mcp-server==11.0.23", "awslabs.aws-iot-sitewise-mcp-server",
           ("--allow-writes",), _AWS),
    Server("asana", "@roychri/mcp-server-asana@1.8.0", "dist/index.js", env=_dummy("ASANA_ACCESS_TOKEN")),
    Server("ppt", "office-powerpoint-mcp-server==2.0.7", "ppt_mcp_server", also=("mcp<2",)),
    Server("dataprocessing", "awslabs-aws-dataprocessing-mcp-server==0.2.2", "awslabs.aws-dataprocessing-mcp-server",
           ("--allow-write",), _AWS),
    Server("chrome-devtools", "chrome-devtools-mcp@1.11.0", "build/src/bin/chrome-devtools-mcp.js",
           ("--headless", "--isolated", "--no-usage-statistics")),
    Server("drawio", "drawio-mcp-server@2.3.0", "build/index.js"),
    Server("iam", "awslabs-iam-mcp-server==1.0.25", "awslabs.iam-mcp-server", env=_AWS),
    Server("n8n", "n8n-mcp@2.87.0", "dist/mcp/stdio-wrapper.js",
           env=_dummy("N8N_API_KEY") | {"MCP_MODE": "stdio", "LOG_LEVEL": "error", "N8N_API_URL": _NOWHERE}
           | dict.fromkeys(("DISABLE_CONSOLE_OUTPUT", "N8N_MCP_TELEMETRY_DISABLED"), "true")),
    Server("lark", "@larksuiteoapi/lark-mcp@0.5.1", "dist/cli.js", ("mcp", "-a", "cli_x", "-s", "x", "-t", ",".join(
        f"preset.{part}" for part in ("default", "im.default", "base.default", "doc.default", "task.default",
                                      "calendar.default")))),
    Server("antv-chart", "@antv/mcp-server-chart@0.9.10", "build/index.js"),
    Server("k8s-kubectl", "mcp-server-kubernetes@4.1.7", "dist/index.js", env={"KUBECONFIG": "{work}/kubeconfig"}),
    Server("datadog", "@winor30/mcp-server-datadog@1.8.0", "build/index.js",
           env=_dummy("DATADOG_API_KEY", "DATADOG_APP_KEY")),
    Server("launchdarkly", "@launchdarkly/mcp-server@0.6.2", "bin/mcp-server.js", ("start", "--api-key", "dummy")),
    Server("cloudwatch", "awslabs-cloudwatch-mcp-server==0.3.1", "awslabs.cloudwatch-mcp-server", env=_AWS),
    Server("echarts", "mcp-echarts@0.7.1", "build/index.js"),
    Server("qase", "@qase/mcp-server@2.7.0", "build/index.js", env=_dummy("QASE_API_TOKEN")),
    Server("neo4j-model", "mcp-neo4j-data-modeling==0.8.2", "mcp-neo4j-data-modeling"),
    Server("eks", "awslabs-eks-mcp-server==0.2.1", "awslabs.eks-mcp-server", ("--allow-write",), _AWS),
    Server("circleci", "@circleci/mcp-server-circleci@0.20.0", "dist/index.js", env=_dummy("CIRCLECI_TOKEN")),
    Server("dynamodb", "awslabs-dynamodb-mcp-server==2.1.8", "awslabs.dynamodb-mcp-server", env=_AWS),
    Server("ecs", "awslabs-ecs-mcp-server==0.1.37", "ecs-mcp-server", env=_AWS),
    Server("taskmaster", "task-master-ai@0.43.1", "dist/mcp-server.js",
           env=_dummy("ANTHROPIC_API_KEY") | {"TASK_MASTER_TOOLS": "all"}),
    Server("mysql-never", "@neverinfamous/mysql-mcp@2.1.0", "dist/cli.js",
           ("--transport", "stdio", "--mysql", "mysql://bench:bench@127.0.0.1:{port}/test"), needs="mysql"),
    Server("memcached", "awslabs-memcached-mcp-server==1.1.1", "awslabs.memcached-mcp-server",
           env=_AWS | {"MEMCACHED_HOST": "127.0.0.1", "MEMCACHED_PORT": "9"}),
    Server("email", "mcp-email-server==1.13.3", "mcp-email-server", ("stdio",)),
    Server("chroma", "chroma-mcp==0.2.6", "chroma-mcp",
           ("--client-type", "persistent", "--data-dir", "{work}/chroma"), also=("mcp<2", "pydantic<2.13")),
    Server("valkey", "awslabs-valkey-mcp-server==1.1.1", "awslabs.valkey-mcp-server",
           env=_AWS | {"VALKEY_HOST": "127.0.0.1", "VALKEY_PORT": "9"}),
    Server("obsidian", "obsidian-mcp@1.0.6", "build/main.js", ("{work}/vault",)),
    Server("infisical", "@infisical/mcp@0.0.24", "dist/index.js",
           env=_dummy("INFISICAL_UNIVERSAL_AUTH_CLIENT_ID", "INFISICAL_UNIVERSAL_AUTH_CLIENT_SECRET")),
    Server("currents", "@currents/mcp@2.1.1", "build/index.js", env=_dummy("CURRENTS_API_KEY")),
    Server("excel-negokaz", "@negokaz/excel-mcp-server@0.12.0", "dist/launcher.js"),
    Server("libsql-memory", "mcp-memory-libsql@0.0.17", "dist/index.js", env={"LIBSQL_URL": "file:{work}/lib.db"}),
    Server("opensearch", "opensearch-mcp-server-py==0.12.0", "opensearch-mcp-server-py",
           env={"OPENSEARCH_URL": _NOWHERE, "OPENSEARCH_NO_AUTH": "true"}),
    Server("alchemy", "mcp-alchemy==2026.10.15.202659", "mcp-alchemy", env={"DB_URL": "sqlite:///{work}/t.db"}),
    Server("redis-ref", "@modelcontextprotocol/server-redis@2025.4.25", "dist/index.js", ("redis://127.0.0.1:{port}",),
           needs="redis"),
    Server("dataforseo", "dataforseo-mcp-server@3.0.1", "dist/index.js",
           env=_dummy("DATAFORSEO_USERNAME", "DATAFORSEO_PASSWORD")),
    Server("docload", "awslabs-document-loader-mcp-server==1.0.23", "awslabs.document-loader-mcp-server", env=_AWS),
    Server("dbhub", "@bytebase/dbhub@0.21.2", "dist/index.js",
           ("--transport", "stdio", "--dsn", "mysql://bench:bench@127.0.0.1:{port}/test"), needs="mysql"),
    Server("serena", "serena-agent==2.1.0", "serena",
           ("start-mcp-server", "--context", "ide-assistant", "--project", "{work}/repo",
            "--enable-web-dashboard", "false")),
    Server("calculator", "mcp-server-calculator==0.2.1", "mcp-server-calculator"),
    Server("clickhouse", "mcp-clickhouse==0.7.0", "mcp-clickhouse",
           env={"CHDB_ENABLED": "true", "CLICKHOUSE_ENABLED": "false", "CHDB_DATA_PATH": ":memory:"},
           also=("chdb",)),
    Server("pandoc", "mcp-pandoc==0.11.1", "mcp-pandoc"),
    Server("postgres-ref", "@modelcontextprotocol/server-postgres@0.6.2", "dist/index.js",
           ("postgresql://postgres@127.0.0.1:9/postgres",)),
    Server("mermaid", "mcp-mermaid@0.4.1", "build/index.js"),
    Server("eslint", "@eslint/mcp@0.3.13", "src/mcp-cli.js"),
)
# fmt: on

SERVERS: Mapping[str, Server] = {server.name: server for server in _TABLE}

# fmt: off
SETS: Mapping[str, tuple[str, ...]] = {
    "reference": ("everything", "filesystem", "memory", "git", "time", "sqlite"),
    "ten": (
        "sequential-thinking", "word", "excel", "docx", "motherduck", "mathematics", "calc", "fast-fs", "git-cyanheads",
        "treesitter",
    ),
    "discovery": (
        "filesystem", "git", "time", "sqlite", "memory", "word", "excel", "calc", "treesitter", "fetch", "playwright",
        "kubernetes", "mongodb", "github", "gitlab", "linear", "atlassian", "todoist", "slack", "notion", "workspace",
        "hubspot", "xero", "paddle", "digitalocean", "grafana", "sentry", "cloudinary", "mapbox", "ha",
    ),
    "catalogs": (
        "filesystem", "memory", "git", "sqlite", "sequential-thinking", "word", "excel", "redis", "git-cyanheads",
        "treesitter", "time", "docx", "postgres-henkey", "mathematics", "markitdown", "fetch",
    ),
    "large": (
        "tooluniverse", "hostinger", "ms365", "azure", "postman", "twilio", "iterable", "healthomics", "backlog",
        "shortcut", "billing", "sns-sqs", "browserstack", "coolify", "attio", "iotsitewise", "asana", "ppt",
        "dataprocessing", "chrome-devtools", "drawio", "iam", "n8n", "lark", "antv-chart", "k8s-kubectl", "datadog",
        "launchdarkly", "cloudwatch", "echarts", "qase", "neo4j-model", "eks", "circleci", "dynamodb", "ecs",
    ),
}
# fmt: on
"""`reference` and `ten` work offline; `discovery` is a broad catalog, mostly listing-only; `catalogs` has 508 tools;
`large` is listing-only, with thousands."""


class ServerFailed(Exception):
    """A server did not install, or did not answer as a server should."""


def select(names: Iterable[str]) -> tuple[Server, ...]:
    """The servers named, directly or by set, each once; every server if no names are given."""
    wanted: dict[str, None] = {}
    for name in names:
        if name not in SETS and name not in SERVERS:
            raise ServerFailed(f"no server or set {name!r}; sets: {', '.join(SETS)}; servers: {', '.join(SERVERS)}")
        wanted.update(dict.fromkeys(SETS.get(name, (name,))))
    return tuple(SERVERS[name] for name in wanted or SERVERS)


def cache_folder() -> Path:
    chosen = os.environ.get("MCPGATE_BENCH_DIR")
    return Path(chosen).expanduser().resolve() if chosen else Path(platformdirs.user_cache_dir("mcpgate")) / "bench"


def home_of(server: Server) -> Path:
    """Where the server is installed."""
    return cache_folder() / ("npm" if server.is_npm else "venv") / server.name


# Installation


def install(server: Server) -> bool:
    """Installs the server. False if this exact package was already installed."""
    if is_installed(server):
        return False
    home = home_of(server)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    if server.is_npm:
        (home / "package.json").write_text('{"private": true}')
        npm = _find_program("npm")
        _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", server.package, *server.also], home)
    elif uv := shutil.which("uv"):
        _run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(home)], home)
        python = str(_script(home, "python"))
        _run([uv, "pip", "install", "--quiet", "--python", python, server.package, *server.also], home)
    else:
        _run([sys.executable, "-m", "venv", str(home)], home)
        _run([str(_script(home, "python")), "-m", "pip", "install", "--quiet", server.package, *server.also], home)
    (home / _STAMP).write_text(_pinned(server))
    return True


def is_installed(server: Server) -> bool:
    stamp = home_of(server) / _STAMP
    return stamp.is_file() and stamp.read_text() == _pinned(server)


def _pinned(server: Server) -> str:
    return json.dumps([server.package, *server.also])


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerFailed(f"{' '.join(command)} exited with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")


def _find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ServerFailed(f"{name} is not on the PATH; npm servers need Node.js 20 or later")
    return found


def _script(home: Path, name: str) -> Path:
    return home / "Scripts" / f"{name}.exe" if os.name == "nt" else home / "bin" / name


# Launch lines


def mcp_servers(servers: Iterable[Server], work: Path | None = None) -> dict[str, dict[str, Any]]:
    """The `mcpServers` of a configuration file. `work` is the scratch folder, created and filled if missing."""
    work = (work or cache_folder() / "work").resolve()
    prepare(work)
    return {server.name: _launch_line(server, work) for server in servers}


def _launch_line(server: Server, work: Path, port: int = 9) -> dict[str, Any]:
    def fill(text: str) -> str:
        return text.replace("{work}", work.as_posix()).replace("{port}", str(port))

    home = home_of(server)
    args = [fill(text) for text in server.args]
    env = {key: fill(text) for key, text in server.env.items()}
    if not server.is_npm:
        return {"command": str(_script(home, server.program)), "args": args, "env": env}
    module = home / "node_modules" / server.package.rpartition("@")[0] / server.program
    return {"command": "node", "args": [str(module), *args], "env": env}


def prepare(work: Path) -> None:
    """Fills a scratch folder with what some servers require: a repository, a kubeconfig, a vault, a profile."""
    (work / "vault" / ".obsidian").mkdir(parents=True, exist_ok=True)
    (work / "aws-config").write_text("[default]\nregion = us-east-1\n")
    (work / "kubeconfig").write_text(json.dumps(_KUBECONFIG))
    repository = work / "repo"
    if not (repository / ".git").exists():
        repository.mkdir(exist_ok=True)
        (repository / "README.md").write_text("# Scratch\n")
        git = [_find_program("git"), "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        _run([*git, "init", "--quiet", "--initial-branch=main"], repository)
        _run([*git, "add", "."], repository)
        _run([*git, "commit", "--quiet", "--no-gpg-sign", "--message=First"], repository)


_KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "bench",
    "clusters": [{"name": "bench", "cluster": {"server": _NOWHERE}}],
    "users": [{"name": "bench", "user": {"token": "dummy"}}],
    "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
}


# Catalogs


def capture_file(name: str) -> Path:
    return cache_folder() / "captures" / f"{name}.json"


def load_tools(name: str) -> list[dict[str, Any]]:
    """The captured tools of one server, as it sent them."""
    file = capture_file(name)
    if not file.is_file():
        raise ServerFailed(f"{name} is not captured; run `python -m benchmarks.servers capture {name}`")
    tools: list[dict[str, Any]] = json.loads(file.read_text())["tools"]
    return tools


async def capture(server: Server) -> int:
    """Starts the server, stores every page of its `tools/list`, and returns the number of tools."""
    if not is_installed(server):
        raise ServerFailed(f"not installed; run `python -m benchmarks.servers install {server.name}`")
    work = (cache_folder() / "work").resolve()
    prepare(work)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(running(server.needs)) if server.needs else 9
        return await _capture(server, _launch_line(server, work, port), work)


async def _capture(server: Server, line: Mapping[str, Any], work: Path) -> int:
    async with asyncio.timeout(_START_TIMEOUT_S), _open_session(line, work) as session:
        opened = await session.request(
            "initialize",
            {
                "protocolVersion": _PROTOCOL_VERSION,
                "capabilities": {},
                "clientInfo": {"name": "mcpgate-bench", "version": "1"},
            },
        )
        session.notify("notifications/initialized")
        tools: list[Any] = []
        cursor: str | None = None
        pages = 0
        while pages == 0 or cursor:
            page = await session.request("tools/list", {"cursor": cursor} if cursor else {})
            tools += page["tools"]
            cursor = page.get("nextCursor")
            pages += 1
    record = {"server": server.name, "package": server.package, "initialize": opened, "pages": pages, "tools": tools}
    file = capture_file(server.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, ensure_ascii=False))
    return len(tools)


class _Session:
    """As much of an MCP client as listing needs, so that no SDK changes what the server sent."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin and process.stdout
        self._stdin, self._stdout = process.stdin, process.stdout
        self._last_id = 0

    def notify(self, method: str) -> None:
        self._send({"method": method})

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._last_id += 1
        self._send({"id": self._last_id, "method": method, "params": params})
        while line := await self._stdout.readline():
            try:
                message = json.loads(line)
            except ValueError:
                continue  # Some servers print a greeting to stdout.
            if not isinstance(message, dict):
                continue
            if "method" in message:
                self._refuse(message)
            elif message.get("id") == self._last_id:
                if "error" in message:
                    raise ServerFailed(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
        raise ServerFailed(f"ended before answering {method}")

    def _refuse(self, message: dict[str, Any]) -> None:
        """Refuses a request of the server; ignores its notifications."""
        if message.get("id") is None:
            return
        if message["method"] == "ping":
            self._send({"id": message["id"], "result": {}})
        else:
            self._send({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})

    def _send(self, message: dict[str, Any]) -> None:
        self._stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


@contextlib.asynccontextmanager
async def _open_session(line: Mapping[str, Any], work: Path) -> AsyncIterator[_Session]:
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    inherited = {key: os.environ[key] for key in ("PATH", "LANG", "SYSTEMROOT") if key in os.environ}
    process = await asyncio.create_subprocess_exec(
        line["command"],
        *line["args"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=work,
        env={**inherited, "HOME": str(home), **line["env"]},
        limit=_MAX_MESSAGE_BYTES,
        start_new_session=True,
    )
    try:
        yield _Session(process)
    finally:
        _end(process)
        await process.wait()


def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the server and its children: npm launchers start their own binaries."""
    with contextlib.suppress(ProcessLookupError):
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


# Command line


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.servers", description="Real MCP servers to measure with."
    )
    parser.add_argument("action", choices=("install", "capture", "config"))
    parser.add_argument("names", nargs="*", metavar="NAMES", help=f"servers or sets ({', '.join(SETS)}); default: all")
    options = parser.parse_args(arguments)
    try:
        servers = select(options.names)
    except ServerFailed as error:
        parser.error(str(error))
    if options.action == "config":
        print(json.dumps({"mcpServers": mcp_servers(servers)}, indent=2))
        return 0
    failed = 0
    for server in servers:
        started = time.monotonic()
        try:
            outcome = _act(options.action, server)
        except (ServerFailed, ServiceMissing, OSError, TimeoutError) as error:
            failed += 1
            outcome = f"FAILED: {str(error) or type(error).__name__}"
        print(f"{server.name:20} {time.monotonic() - started:6.1f} s  {outcome}", flush=True)
    return 1 if failed else 0


def _act(action: str, server: Server) -> str:
    if action == "install":
        return f"{server.package} {'installed' if install(server) else 'was there'}"
    return f"{asyncio.run(capture(server))} tools"


if __name__ == "__main__":
    sys.exit(main())
