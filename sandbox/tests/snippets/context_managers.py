# context managers, as a class and as a generator
# result: ["begin a", "<s>", "a S", "</s>", "commit", "begin b", "rollback bad"]
from contextlib import contextmanager, suppress

events = []


class Transaction:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        events.append(f"begin {self.name}")
        return self

    def __exit__(self, kind, error, traceback):
        events.append(f"rollback {error}" if error else "commit")
        return kind is ValueError


@contextmanager
def section(title):
    events.append(f"<{title}>")
    try:
        yield title.upper()
    finally:
        events.append(f"</{title}>")


with Transaction("a") as transaction, section("s") as title:
    events.append(f"{transaction.name} {title}")
with Transaction("b"):
    raise ValueError("bad")
with suppress(KeyError):
    {}["missing"]
events
