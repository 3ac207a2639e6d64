"""Child process: compile a component to native code. `python -I compile_child.py SOURCE TARGET`.

Apart from component.py because it must run with nothing of the parent's state. The target appears in one
step, and its checksum before it is trusted."""

import hashlib
import os
import sys
from pathlib import Path


def main() -> None:
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    from wasmtime.component import Component

    from mcpgate_sandbox.component import new_engine

    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    code = bytes(Component(new_engine(), source.read_bytes()).serialize())
    for path, data in ((target, code), (target.with_suffix(".sha256"), hashlib.sha256(code).hexdigest().encode())):
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_bytes(data)
        beside.chmod(0o600)
        beside.replace(path)


if __name__ == "__main__":
    main()
