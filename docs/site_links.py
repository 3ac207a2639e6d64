"""A hook of MkDocs: links that leave docs/ point to files of the repository. Readers of the repository follow them; the
site does not contain these files, so it shows their paths instead."""

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\[([^\]\n]+)\]\((\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """MkDocs calls this with the source of each page."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")
    return _LINK.sub(lambda link: _in_the_site(link, folder), markdown)


def _in_the_site(link: re.Match[str], folder: str) -> str:
    path = posixpath.normpath(posixpath.join(folder, link[2].partition("#")[0]))
    if path.startswith("docs/"):
        return link[0]
    name = link[1].strip("`")
    return f"`{path}`" if name in (path, posixpath.basename(path)) else f"{link[1]} (`{path}`)"
