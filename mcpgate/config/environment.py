"""What is taken from the environment: variables in the configuration, the key and metadata of a client that starts the
gateway over stdio, and what stdio children inherit. Paths are found in files.py and cli/clients.py.
"""

import os
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from mcpgate.config.upstreams import UpstreamConfig, is_disabled
from mcpgate.errors import ConfigError

_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}")


def missing_variables(node: Any, environ: Mapping[str, str]) -> list[str]:
    """The variables that a part of the configuration needs but the environment lacks, each once."""
    if isinstance(node, str):
        found = _VARIABLE.finditer(node)
        return list(dict.fromkeys(m.group(1) for m in found if m.group(2) is None and m.group(1) not in environ))
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return list(dict.fromkeys(name for part in parts for name in missing_variables(part, environ)))


def interpolate(node: Any, where: str, source: str, environ: Mapping[str, str]) -> Any:
    """A part of the configuration with `${VAR}` and `${VAR:-default}` filled in. Raises ConfigError for a variable that
    is not set, located by `where` and `source`."""
    if isinstance(node, str):

        def value(match: re.Match[str]) -> str:
            name, has_default, default = match.group(1), match.group(2), match.group(3)
            if name in environ and (environ[name] or not has_default):
                return environ[name]
            if has_default:
                return default
            raise ConfigError(
                f"{source}: {where} needs the environment variable {name}, which is not set "
                f"(set it, or write ${{{name}:-default}})"
            )

        return _VARIABLE.sub(value, node)
    if isinstance(node, dict):
        if is_disabled(node) and where.startswith("mcpServers."):
            return node  # a disabled server needs no secrets
        return {k: interpolate(v, f"{where}.{k}" if where else str(k), source, environ) for k, v in node.items()}
    if isinstance(node, list):
        return [interpolate(v, f"{where}[{i}]", source, environ) for i, v in enumerate(node)]
    return node


def key_of_environment(environ: Mapping[str, str] = os.environ) -> str | None:
    """The virtual key of a client that starts the gateway itself, over stdio: $MCPGATE_KEY."""
    return environ.get("MCPGATE_KEY") or None


def metadata_of_environment(environ: Mapping[str, str] = os.environ) -> str:
    """The metadata of such a client, as in x-mcpgate-metadata: $MCPGATE_METADATA, a JSON object."""
    return environ.get("MCPGATE_METADATA", "")


def token_key_of_environment(environ: Mapping[str, str] = os.environ) -> str | None:
    """What tokens are encrypted with where they are stored: $MCPGATE_TOKEN_KEY."""
    return environ.get("MCPGATE_TOKEN_KEY") or None


class OtelVariables(NamedTuple):
    """What the standard variables of OpenTelemetry say of traces. The SDK reads the others itself: headers, name of the
    service, resource attributes, sampler …"""

    is_disabled: bool
    """$OTEL_SDK_DISABLED, or $OTEL_TRACES_EXPORTER=none."""
    has_endpoint: bool
    protocol: str


def otel_of_environment(environ: Mapping[str, str] = os.environ) -> OtelVariables:
    """$OTEL_…"""

    def either(name: str) -> str:
        return environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""

    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    none = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    return OtelVariables(off or none, bool(either("ENDPOINT")), either("PROTOCOL").strip().lower() or "http/protobuf")


INHERITED = (
    ("APPDATA", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATH", "PATHEXT", "PROCESSOR_ARCHITECTURE", "SYSTEMDRIVE",
     "SYSTEMROOT", "TEMP", "USERNAME", "USERPROFILE")
    if sys.platform == "win32"
    else ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
)  # fmt: skip
"""The variables that stdio children inherit: enough to start, no secrets."""


_OFTEN_NEEDED = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NPM_CONFIG_REGISTRY", "PIP_INDEX_URL",
    "UV_DEFAULT_INDEX", "UV_INDEX_URL", "SSH_AUTH_SOCK", "DOCKER_HOST",
)  # fmt: skip
"""Variables without which some servers do not start or reach nothing."""


def not_inherited(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The variables set here that servers often need, and that stdio children do not inherit."""
    return [name for name in _OFTEN_NEEDED if environ.get(name)]


def child_environment(config: UpstreamConfig, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The whole environment of a stdio child."""
    # Exported shell functions (bash's `() {`) are code, not settings.
    inherited = {k: environ[k] for k in INHERITED if k in environ and not environ[k].startswith("()")}
    return {**inherited, **config.env}
