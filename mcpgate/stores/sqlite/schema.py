"""The schema of the SQLite file, as a list of migrations. They are never edited, only added to, because files of every
earlier version exist; a file's user_version is the number of migrations that it has."""

import sqlite3
from collections.abc import Callable

_DIMENSIONS = """
    kind TEXT NOT NULL, "key" TEXT NOT NULL, "user" TEXT NOT NULL, team TEXT NOT NULL, customer TEXT NOT NULL,
    server TEXT NOT NULL, tool TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL,
    cache TEXT NOT NULL"""

_GOVERNANCE = f"""
CREATE TABLE cells (
    counter TEXT, cell INTEGER, spent INTEGER NOT NULL, held INTEGER NOT NULL, ends_at REAL NOT NULL,
    PRIMARY KEY (counter, cell)) WITHOUT ROWID;
CREATE INDEX cells_ends_at ON cells (ends_at);
CREATE TABLE reservations (id TEXT PRIMARY KEY, owner TEXT NOT NULL, claims TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE leases (owner TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, parent_id TEXT NOT NULL, at REAL NOT NULL,
    {_DIMENSIONS},
    cost INTEGER, calls INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, seconds REAL NOT NULL,
    definition_tokens_saved INTEGER NOT NULL, result_tokens_saved INTEGER NOT NULL, latency_ms REAL NOT NULL,
    metadata TEXT NOT NULL);
CREATE INDEX entries_at ON entries (at);
CREATE TABLE contents (
    id TEXT PRIMARY KEY, at REAL NOT NULL, arguments TEXT NOT NULL, result TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sums (
    span INTEGER NOT NULL, start INTEGER NOT NULL,
    {_DIMENSIONS},
    metadata TEXT NOT NULL,
    entries INTEGER NOT NULL, requests INTEGER NOT NULL, executions INTEGER NOT NULL, tool_calls INTEGER NOT NULL,
    failed INTEGER NOT NULL, unpriced INTEGER NOT NULL, cost INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL, latency_ms REAL NOT NULL, definition_tokens_saved INTEGER NOT NULL,
    result_tokens_saved INTEGER NOT NULL,
    PRIMARY KEY (
        span, start, kind, "key", "user", team, customer, server, tool, provider, model, outcome, cache, metadata)
    ) WITHOUT ROWID;
CREATE TABLE records (kind TEXT, id TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE digests (digest TEXT PRIMARY KEY, id TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX digests_id ON digests (id);
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    kind TEXT NOT NULL, id TEXT NOT NULL, value TEXT);
CREATE TABLE facts (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
INSERT INTO facts VALUES ('version', 0), ('rolled', 0), ('pruned', 0);

-- What earlier versions counted by the day becomes sums of the day, and of its first hour.
INSERT INTO sums
SELECT span, CAST(strftime('%s', day) AS INTEGER), 'meta', 'local', '', '', '', '', '', '', '', 'ok', '', '{{}}',
    SUM(amount * (name = 'requests')), SUM(amount * (name = 'requests')), SUM(amount * (name = 'executions')),
    SUM(amount * (name = 'tool_calls')), SUM(amount * (name = 'failed_executions')), 0, 0, 0, 0, 0, 0, 0, 0,
    SUM(amount * (name = 'definition_tokens_saved')), SUM(amount * (name = 'result_tokens_saved'))
FROM tallies, (SELECT 3600 AS span UNION SELECT 86400) GROUP BY span, day;
DROP TABLE tallies;
"""

_ABANDONED = """
ALTER TABLE entries ADD COLUMN more TEXT NOT NULL DEFAULT '{}';
ALTER TABLE entries ADD COLUMN timings TEXT NOT NULL DEFAULT '{}';
ALTER TABLE entries ADD COLUMN facts TEXT NOT NULL DEFAULT '{}';
-- The entry that is written if the owner ends before it settles, none where nothing would be lost with the hold.
ALTER TABLE reservations ADD COLUMN abandoned TEXT;
"""

_TOKENS = """
CREATE TABLE tokens (key TEXT PRIMARY KEY, value BLOB NOT NULL, until REAL) WITHOUT ROWID;
CREATE TABLE token_locks (key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
"""

_OBJECTS = """
CREATE TABLE provider_objects (
    kind TEXT NOT NULL, id TEXT NOT NULL, provider TEXT NOT NULL, account TEXT NOT NULL, model TEXT NOT NULL,
    alias TEXT NOT NULL, key TEXT NOT NULL, at REAL NOT NULL, about BLOB NOT NULL,
    PRIMARY KEY (kind, id, provider)) WITHOUT ROWID;
CREATE INDEX provider_objects_account ON provider_objects (account, kind, at, id);
"""

_CACHE = """
ALTER TABLE entries ADD COLUMN model_tokens_saved INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN cost_saved INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN model_tokens_saved INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN cost_saved INTEGER NOT NULL DEFAULT 0;
CREATE TABLE cache_entries (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, server TEXT NOT NULL,
    tool TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, tags TEXT NOT NULL, partition TEXT NOT NULL,
    at REAL NOT NULL, until REAL NOT NULL, used REAL NOT NULL, size INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX cache_entries_until ON cache_entries (until);
CREATE INDEX cache_entries_used ON cache_entries (used, size);
CREATE INDEX cache_entries_server ON cache_entries (server) WHERE server <> '';
CREATE INDEX cache_entries_partition ON cache_entries (partition, at) WHERE partition <> '';
CREATE TABLE cache_epochs (server TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
"""

_BATCHES = """
CREATE TABLE batches (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, kind TEXT NOT NULL, at REAL NOT NULL, status TEXT NOT NULL,
    value BLOB NOT NULL, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX batches_account ON batches (account, kind, at, id);
CREATE INDEX batches_open ON batches (at, id) WHERE status IN ('validating', 'in_progress', 'cancelling');
CREATE TABLE batch_pieces (
    file TEXT NOT NULL, number INTEGER NOT NULL, account TEXT NOT NULL, at REAL NOT NULL, size INTEGER NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (file, number));
CREATE INDEX batch_pieces_account ON batch_pieces (account, size);
CREATE INDEX batch_pieces_at ON batch_pieces (at);
CREATE TABLE batch_lines (
    batch TEXT NOT NULL, number INTEGER NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL, result BLOB NOT NULL,
    PRIMARY KEY (batch, number));
"""

_REQUESTS = """
CREATE INDEX entries_parent ON entries (parent_id) WHERE parent_id <> '';
-- The terms of entries up to number `indexed`, as words. What entries say is not repeated.
CREATE VIRTUAL TABLE entry_terms USING fts5(terms, content='', detail=none, columnsize=0);
INSERT INTO facts VALUES ('indexed', 0);
"""

# The table `contents` stays for processes of the earlier version that are still running.
_CONTENTS = """
CREATE TABLE request_contents (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, sent TEXT NOT NULL, answered TEXT NOT NULL);
CREATE INDEX request_contents_at ON request_contents (at);
INSERT INTO request_contents (id, at, sent, answered) SELECT id, at, arguments, result FROM contents;
CREATE VIRTUAL TABLE content_words USING fts5(
    sent, answered, content='request_contents', content_rowid='number', detail=none, columnsize=0);
INSERT INTO content_words (content_words) VALUES ('rebuild');
"""

_ALERTS = """
CREATE TABLE alert_states (
    alert TEXT NOT NULL, subject TEXT NOT NULL, level REAL NOT NULL, since REAL NOT NULL, text TEXT NOT NULL,
    message TEXT NOT NULL, is_told INTEGER NOT NULL, PRIMARY KEY (alert, subject)) WITHOUT ROWID;
CREATE TABLE alert_leader (one INTEGER PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL);
"""


def _run(script: str) -> Callable[[sqlite3.Connection], None]:
    def migration(db: sqlite3.Connection) -> None:
        # Not executescript, which would commit first. No statement has a semicolon inside.
        for statement in script.split(";"):
            if statement.strip():
                db.execute(statement)

    return migration


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [
    _run(
        "CREATE TABLE kept (kind TEXT, key TEXT, value BLOB NOT NULL, at REAL NOT NULL, PRIMARY KEY (kind, key))"
        " WITHOUT ROWID"
    ),
    _run("CREATE TABLE tallies (day TEXT, name TEXT, amount INTEGER NOT NULL, PRIMARY KEY (day, name)) WITHOUT ROWID"),
    _run(_GOVERNANCE),
    _run(_ABANDONED),
    _run(_TOKENS),
    _run(_OBJECTS),
    _run(_BATCHES),
    _run(_CACHE),
    _run(_REQUESTS),
    _run(_CONTENTS),
    _run(_ALERTS),
]
