"""The schema in PostgreSQL (13 or later), as a list of migrations. They are never edited, only added to. Everything is
in one schema of the database, which the connection's search path names."""

_DIMENSIONS = """
    kind TEXT NOT NULL, "key" TEXT NOT NULL, "user" TEXT NOT NULL, team TEXT NOT NULL, customer TEXT NOT NULL,
    server TEXT NOT NULL, tool TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL,
    cache TEXT NOT NULL"""

_ENTRY = f"""
    id TEXT, parent_id TEXT, at DOUBLE PRECISION, {_DIMENSIONS.replace(" NOT NULL", "")},
    cost BIGINT, calls BIGINT, input_tokens BIGINT, output_tokens BIGINT, cache_read_tokens BIGINT,
    cache_write_tokens BIGINT, seconds DOUBLE PRECISION, definition_tokens_saved BIGINT, result_tokens_saved BIGINT,
    latency_ms DOUBLE PRECISION, metadata JSONB"""
_ENTRY_COLUMNS = """
    id, parent_id, at, kind, "key", "user", team, customer, server, tool, provider, model, outcome, cache, cost, calls,
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, seconds, definition_tokens_saved,
    result_tokens_saved, latency_ms, metadata"""

_TABLES = f"""
-- One row a counter, which everybody who changes its cells locks first, in the order of the names.
CREATE TABLE counters (counter TEXT COLLATE "C" PRIMARY KEY);
CREATE TABLE cells (
    counter TEXT COLLATE "C", cell BIGINT, spent BIGINT NOT NULL, held BIGINT NOT NULL,
    ends_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (counter, cell));
CREATE INDEX cells_ends_at ON cells (ends_at);
CREATE TABLE reservations (id TEXT PRIMARY KEY, owner TEXT NOT NULL, claims JSONB NOT NULL);
CREATE INDEX reservations_owner ON reservations (owner);
CREATE TABLE leases (owner TEXT PRIMARY KEY, until DOUBLE PRECISION NOT NULL);
-- xid tells which entries were there when the sums were last added to: numbers are not handed out in the order in
-- which transactions end.
CREATE TABLE entries (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, xid XID8 NOT NULL DEFAULT pg_current_xact_id(),
    id TEXT NOT NULL UNIQUE, parent_id TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, {_DIMENSIONS},
    cost BIGINT, calls BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL, cache_write_tokens BIGINT NOT NULL, seconds DOUBLE PRECISION NOT NULL,
    definition_tokens_saved BIGINT NOT NULL, result_tokens_saved BIGINT NOT NULL,
    latency_ms DOUBLE PRECISION NOT NULL, metadata JSONB NOT NULL);
CREATE INDEX entries_at ON entries (at);
CREATE INDEX entries_xid ON entries (xid);
CREATE TABLE contents (
    id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, arguments TEXT NOT NULL, result TEXT NOT NULL);
CREATE TABLE sums (
    span INTEGER NOT NULL, start BIGINT NOT NULL, {_DIMENSIONS}, metadata JSONB NOT NULL,
    entries BIGINT NOT NULL, requests BIGINT NOT NULL, executions BIGINT NOT NULL, tool_calls BIGINT NOT NULL,
    failed BIGINT NOT NULL, unpriced BIGINT NOT NULL, cost BIGINT NOT NULL, input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL, cache_read_tokens BIGINT NOT NULL, cache_write_tokens BIGINT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL, latency_ms DOUBLE PRECISION NOT NULL,
    definition_tokens_saved BIGINT NOT NULL, result_tokens_saved BIGINT NOT NULL,
    -- Of all columns that are not sums: together they may be too long for an index.
    digest TEXT PRIMARY KEY);
CREATE INDEX sums_start ON sums (span, start);
CREATE TABLE records (kind TEXT, id TEXT COLLATE "C", value JSONB NOT NULL, PRIMARY KEY (kind, id));
CREATE TABLE digests (digest TEXT PRIMARY KEY, id TEXT NOT NULL);
CREATE INDEX digests_id ON digests (id);
CREATE TABLE audit (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at DOUBLE PRECISION NOT NULL, actor TEXT NOT NULL,
    action TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, value JSONB);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO facts VALUES ('version', '0'), ('rolled', '0'), ('pruned', '0')
"""

_LOCK = """
CREATE FUNCTION lock_counters(p_counters TEXT[]) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    v_names TEXT[] := ARRAY(SELECT DISTINCT name COLLATE "C" FROM unnest(p_counters) AS name ORDER BY 1);
    v_locked BIGINT;
BEGIN
    LOOP
        SELECT count(*) INTO v_locked FROM (
            SELECT 1 FROM counters WHERE counter = ANY (v_names) ORDER BY counter FOR UPDATE) AS locked;
        EXIT WHEN v_locked = cardinality(v_names);
        INSERT INTO counters SELECT name FROM unnest(v_names) AS name ORDER BY name ON CONFLICT DO NOTHING;
    END LOOP;
END $$
"""

_RESERVE = """
CREATE FUNCTION reserve(
    p_id TEXT, p_owner TEXT, p_counters TEXT[], p_cells BIGINT[], p_oldest BIGINT[], p_amounts BIGINT[],
    p_limits BIGINT[], p_ends_at DOUBLE PRECISION[])
RETURNS TABLE (fits BOOLEAN, spent BIGINT, held BIGINT, first BIGINT) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_fits BOOLEAN[];
    v_spent BIGINT[];
    v_held BIGINT[];
    v_first BIGINT[];
    v_known BOOLEAN;
BEGIN
    -- A hold that is lost with the database server loses no money.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM lock_counters(p_counters);
    SELECT array_agg(stand.limit_ IS NULL OR stand.spent + stand.held + stand.amount <= stand.limit_ ORDER BY place),
           array_agg(stand.spent ORDER BY place), array_agg(stand.held ORDER BY place),
           array_agg(stand.first ORDER BY place)
    INTO v_fits, v_spent, v_held, v_first
    FROM (
        SELECT claim.place, claim.amount, claim.limit_, COALESCE(SUM(cells.spent), 0)::BIGINT AS spent,
               COALESCE(SUM(cells.held), 0)::BIGINT AS held,
               MIN(cells.cell) FILTER (WHERE cells.spent <> 0 OR cells.held <> 0) AS first
        FROM unnest(p_counters, p_oldest, p_amounts, p_limits) WITH ORDINALITY
             AS claim (counter, oldest, amount, limit_, place)
        LEFT JOIN cells ON cells.counter = claim.counter AND cells.cell >= claim.oldest
        GROUP BY claim.place, claim.amount, claim.limit_) AS stand;
    v_known := EXISTS (SELECT 1 FROM reservations WHERE id = p_id) OR EXISTS (SELECT 1 FROM entries WHERE id = p_id);
    IF v_known THEN
        v_fits := array_fill(true, ARRAY[cardinality(v_fits)]);
    ELSIF true = ALL (v_fits) THEN
        INSERT INTO cells
            SELECT claim.counter, claim.cell, 0, claim.amount, claim.ends_at
            FROM unnest(p_counters, p_cells, p_amounts, p_ends_at) AS claim (counter, cell, amount, ends_at)
            ON CONFLICT (counter, cell) DO UPDATE SET held = cells.held + EXCLUDED.held;
        INSERT INTO reservations VALUES (p_id, p_owner, (
            SELECT jsonb_agg(jsonb_build_array(claim.counter, claim.cell, claim.amount))
            FROM unnest(p_counters, p_cells, p_amounts) AS claim (counter, cell, amount)));
        v_held := ARRAY(SELECT was + more FROM unnest(v_held, p_amounts) WITH ORDINALITY AS both_ (was, more, place)
                        ORDER BY place);
    END IF;
    RETURN QUERY SELECT * FROM unnest(v_fits, v_spent, v_held, v_first);
END $$
"""

_RESERVE_ALL = """
CREATE FUNCTION reserve_all(
    p_ids TEXT[], p_owners TEXT[], p_sizes INTEGER[], p_counters TEXT[], p_cells BIGINT[], p_oldest BIGINT[],
    p_amounts BIGINT[], p_limits BIGINT[], p_ends_at DOUBLE PRECISION[])
RETURNS TABLE (fits BOOLEAN, spent BIGINT, held BIGINT, first BIGINT) LANGUAGE plpgsql AS $$
DECLARE
    v_from INTEGER := 1;
    v_to INTEGER;
BEGIN
    IF cardinality(p_ids) > 1 THEN PERFORM lock_counters(p_counters); END IF;
    FOR v_number IN 1 .. cardinality(p_ids) LOOP
        v_to := v_from + p_sizes[v_number] - 1;
        RETURN QUERY SELECT * FROM reserve(
            p_ids[v_number], p_owners[v_number], p_counters[v_from:v_to], p_cells[v_from:v_to], p_oldest[v_from:v_to],
            p_amounts[v_from:v_to], p_limits[v_from:v_to], p_ends_at[v_from:v_to]);
        v_from := v_to + 1;
    END LOOP;
END $$
"""

_LET_GO = """
CREATE FUNCTION let_go(p_ids TEXT[]) RETURNS VOID LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM reservations WHERE id = ANY (p_ids) RETURNING claims),
    freed AS (
        SELECT claim ->> 0 AS counter, (claim ->> 1)::BIGINT AS cell, SUM((claim ->> 2)::BIGINT)::BIGINT AS amount
        FROM gone, jsonb_array_elements(gone.claims) AS claim GROUP BY 1, 2)
    UPDATE cells SET held = cells.held - freed.amount FROM freed
    WHERE cells.counter = freed.counter AND cells.cell = freed.cell
$$
"""

_SETTLE = f"""
CREATE FUNCTION settle(p_entries JSONB, p_spent JSONB, p_contents JSONB) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    v_new TEXT[];
BEGIN
    PERFORM lock_counters(ARRAY(
        SELECT claim ->> 0 FROM reservations, jsonb_array_elements(claims) AS claim
        WHERE id IN (SELECT entry ->> 'id' FROM jsonb_array_elements(p_entries) AS entry)
        UNION SELECT part ->> 'counter' FROM jsonb_array_elements(p_spent) AS part));
    PERFORM let_go(ARRAY(SELECT entry ->> 'id' FROM jsonb_array_elements(p_entries) AS entry));
    WITH written AS (
        INSERT INTO entries ({_ENTRY_COLUMNS})
        SELECT {_ENTRY_COLUMNS} FROM jsonb_to_recordset(p_entries) AS entry ({_ENTRY})
        ON CONFLICT (id) DO NOTHING RETURNING id)
    SELECT array_agg(id) INTO v_new FROM written;
    INSERT INTO cells
        SELECT part.counter, part.cell, SUM(part.amount), 0, MAX(part.ends_at)
        FROM jsonb_to_recordset(p_spent)
             AS part (id TEXT, counter TEXT, cell BIGINT, amount BIGINT, ends_at DOUBLE PRECISION)
        WHERE part.id = ANY (v_new) AND part.amount <> 0
        GROUP BY part.counter, part.cell
        ON CONFLICT (counter, cell) DO UPDATE SET spent = cells.spent + EXCLUDED.spent;
    INSERT INTO contents
        SELECT content.id, content.at, content.arguments, content.result FROM jsonb_to_recordset(p_contents)
               AS content (id TEXT, at DOUBLE PRECISION, arguments TEXT, result TEXT)
        WHERE content.id = ANY (v_new);
END $$
"""

_EXPIRE = """
CREATE FUNCTION expire(p_now DOUBLE PRECISION) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    v_ids TEXT[];
BEGIN
    v_ids := ARRAY(SELECT id FROM reservations
                   WHERE owner NOT IN (SELECT owner FROM leases WHERE until > p_now) ORDER BY id);
    IF cardinality(v_ids) > 0 THEN
        PERFORM lock_counters(ARRAY(
            SELECT claim ->> 0 FROM reservations, jsonb_array_elements(claims) AS claim WHERE id = ANY (v_ids)));
        -- Who was settled or renewed while the locks were waited for stays as it is now.
        v_ids := ARRAY(SELECT id FROM reservations WHERE id = ANY (v_ids)
                       AND owner NOT IN (SELECT owner FROM leases WHERE until > p_now));
        PERFORM let_go(v_ids);
    END IF;
    DELETE FROM leases WHERE owner IN (
        SELECT owner FROM leases WHERE until <= p_now FOR UPDATE SKIP LOCKED);
    DELETE FROM cells WHERE (counter, cell) IN (
        SELECT counter, cell FROM cells WHERE ends_at <= p_now AND held = 0 FOR UPDATE SKIP LOCKED);
    DELETE FROM counters WHERE counter IN (
        SELECT counter FROM counters WHERE NOT EXISTS (SELECT 1 FROM cells WHERE cells.counter = counters.counter)
        FOR UPDATE SKIP LOCKED);
    RETURN cardinality(v_ids);
END $$
"""

_MORE_COLUMNS = """
ALTER TABLE entries ADD COLUMN more JSONB NOT NULL DEFAULT '{}', ADD COLUMN timings JSONB NOT NULL DEFAULT '{}',
    ADD COLUMN facts JSONB NOT NULL DEFAULT '{}';
-- The entry that is written if the owner ends before it settles; none where nothing would be lost with the hold.
ALTER TABLE reservations ADD COLUMN abandoned JSONB
"""

# The following functions take more arguments than those they replace. The earlier functions stay for processes of the
# earlier version that are still running.
_RESERVE_2 = """
CREATE FUNCTION reserve(
    p_id TEXT, p_owner TEXT, p_abandoned JSONB, p_counters TEXT[], p_cells BIGINT[], p_oldest BIGINT[],
    p_amounts BIGINT[], p_limits BIGINT[], p_ends_at DOUBLE PRECISION[], p_measures TEXT[])
RETURNS TABLE (fits BOOLEAN, spent BIGINT, held BIGINT, first BIGINT) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_fits BOOLEAN[];
    v_spent BIGINT[];
    v_held BIGINT[];
    v_first BIGINT[];
    v_known BOOLEAN;
BEGIN
    PERFORM lock_counters(p_counters);
    SELECT array_agg(stand.limit_ IS NULL OR stand.spent + stand.held + stand.amount <= stand.limit_ ORDER BY place),
           array_agg(stand.spent ORDER BY place), array_agg(stand.held ORDER BY place),
           array_agg(stand.first ORDER BY place)
    INTO v_fits, v_spent, v_held, v_first
    FROM (
        SELECT claim.place, claim.amount, claim.limit_, COALESCE(SUM(cells.spent), 0)::BIGINT AS spent,
               COALESCE(SUM(cells.held), 0)::BIGINT AS held,
               MIN(cells.cell) FILTER (WHERE cells.spent <> 0 OR cells.held <> 0) AS first
        FROM unnest(p_counters, p_oldest, p_amounts, p_limits) WITH ORDINALITY
             AS claim (counter, oldest, amount, limit_, place)
        LEFT JOIN cells ON cells.counter = claim.counter AND cells.cell >= claim.oldest
        GROUP BY claim.place, claim.amount, claim.limit_) AS stand;
    v_known := EXISTS (SELECT 1 FROM reservations WHERE id = p_id)
               OR EXISTS (SELECT 1 FROM entries WHERE id = split_part(p_id, '/', 1));
    IF v_known THEN
        v_fits := array_fill(true, ARRAY[cardinality(v_fits)]);
    ELSIF true = ALL (v_fits) THEN
        INSERT INTO cells
            SELECT claim.counter, claim.cell, 0, claim.amount, claim.ends_at
            FROM unnest(p_counters, p_cells, p_amounts, p_ends_at) AS claim (counter, cell, amount, ends_at)
            ON CONFLICT (counter, cell) DO UPDATE SET held = cells.held + EXCLUDED.held;
        INSERT INTO reservations VALUES (p_id, p_owner, (
            SELECT jsonb_agg(jsonb_build_array(claim.counter, claim.cell, claim.amount, claim.measure, claim.ends_at))
            FROM unnest(p_counters, p_cells, p_amounts, p_measures, p_ends_at)
                 AS claim (counter, cell, amount, measure, ends_at)), p_abandoned);
        v_held := ARRAY(SELECT was + more FROM unnest(v_held, p_amounts) WITH ORDINALITY AS both_ (was, more, place)
                        ORDER BY place);
    END IF;
    RETURN QUERY SELECT * FROM unnest(v_fits, v_spent, v_held, v_first);
END $$
"""

_RESERVE_ALL_2 = """
CREATE FUNCTION reserve_all(
    p_ids TEXT[], p_owners TEXT[], p_abandoned TEXT[], p_durable BOOLEAN, p_sizes INTEGER[], p_counters TEXT[],
    p_cells BIGINT[], p_oldest BIGINT[], p_amounts BIGINT[], p_limits BIGINT[], p_ends_at DOUBLE PRECISION[],
    p_measures TEXT[])
RETURNS TABLE (fits BOOLEAN, spent BIGINT, held BIGINT, first BIGINT) LANGUAGE plpgsql AS $$
DECLARE
    v_from INTEGER := 1;
    v_to INTEGER;
BEGIN
    -- A hold without money that is lost with the database server loses nothing.
    IF NOT p_durable THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
    IF cardinality(p_ids) > 1 THEN PERFORM lock_counters(p_counters); END IF;
    FOR v_number IN 1 .. cardinality(p_ids) LOOP
        v_to := v_from + p_sizes[v_number] - 1;
        RETURN QUERY SELECT * FROM reserve(
            p_ids[v_number], p_owners[v_number], p_abandoned[v_number]::JSONB, p_counters[v_from:v_to],
            p_cells[v_from:v_to], p_oldest[v_from:v_to], p_amounts[v_from:v_to], p_limits[v_from:v_to],
            p_ends_at[v_from:v_to], p_measures[v_from:v_to]);
        v_from := v_to + 1;
    END LOOP;
END $$
"""

_ENTRY_COLUMNS_2 = f"{_ENTRY_COLUMNS}, more, timings, facts"
_ENTRY_2 = f"{_ENTRY}, more JSONB, timings JSONB, facts JSONB"

_SETTLE_2 = f"""
CREATE FUNCTION settle(p_entries JSONB, p_spent JSONB, p_contents JSONB, p_holds TEXT[])
RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    v_new TEXT[];
BEGIN
    PERFORM lock_counters(ARRAY(
        SELECT claim ->> 0 FROM reservations, jsonb_array_elements(claims) AS claim WHERE id = ANY (p_holds)
        UNION SELECT part ->> 'counter' FROM jsonb_array_elements(p_spent) AS part));
    PERFORM let_go(p_holds);
    WITH written AS (
        INSERT INTO entries ({_ENTRY_COLUMNS_2})
        SELECT {_ENTRY_COLUMNS_2} FROM jsonb_to_recordset(p_entries) AS entry ({_ENTRY_2})
        ON CONFLICT (id) DO NOTHING RETURNING id)
    SELECT array_agg(id) INTO v_new FROM written;
    INSERT INTO cells
        SELECT part.counter, part.cell, SUM(part.amount), 0, MAX(part.ends_at)
        FROM jsonb_to_recordset(p_spent)
             AS part (id TEXT, counter TEXT, cell BIGINT, amount BIGINT, ends_at DOUBLE PRECISION)
        WHERE part.id = ANY (v_new) AND part.amount <> 0
        GROUP BY part.counter, part.cell
        ON CONFLICT (counter, cell) DO UPDATE SET spent = cells.spent + EXCLUDED.spent;
    INSERT INTO contents
        SELECT content.id, content.at, content.arguments, content.result FROM jsonb_to_recordset(p_contents)
               AS content (id TEXT, at DOUBLE PRECISION, arguments TEXT, result TEXT)
        WHERE content.id = ANY (v_new);
END $$
"""

_EXPIRE_2 = f"""
CREATE OR REPLACE FUNCTION expire(p_now DOUBLE PRECISION) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    v_ids TEXT[];
    v_new TEXT[];
BEGIN
    v_ids := ARRAY(SELECT id FROM reservations
                   WHERE owner NOT IN (SELECT owner FROM leases WHERE until > p_now) ORDER BY id);
    IF cardinality(v_ids) > 0 THEN
        PERFORM lock_counters(ARRAY(
            SELECT claim ->> 0 FROM reservations, jsonb_array_elements(claims) AS claim WHERE id = ANY (v_ids)));
        -- Who was settled or renewed while the locks were waited for stays as it is now.
        v_ids := ARRAY(SELECT id FROM reservations WHERE id = ANY (v_ids)
                       AND owner NOT IN (SELECT owner FROM leases WHERE until > p_now));
        WITH written AS (
            INSERT INTO entries ({_ENTRY_COLUMNS_2})
            SELECT {_ENTRY_COLUMNS_2} FROM jsonb_to_recordset((
                SELECT COALESCE(jsonb_agg('{{"more": {{}}, "timings": {{}}, "facts": {{}}}}'::JSONB || abandoned), '[]')
                FROM (SELECT DISTINCT ON (split_part(id, '/', 1)) abandoned FROM reservations
                      WHERE id = ANY (v_ids) AND abandoned IS NOT NULL
                      ORDER BY split_part(id, '/', 1), id COLLATE "C" DESC) AS last)) AS entry ({_ENTRY_2})
            ON CONFLICT (id) DO NOTHING RETURNING id)
        SELECT array_agg(id) INTO v_new FROM written;
        INSERT INTO cells
            SELECT claim ->> 0, (claim ->> 1)::BIGINT, SUM((claim ->> 2)::BIGINT)::BIGINT, 0,
                   MAX((claim ->> 4)::DOUBLE PRECISION)
            FROM reservations, jsonb_array_elements(claims) AS claim
            WHERE id = ANY (v_ids) AND split_part(id, '/', 1) = ANY (v_new)
                  AND claim ->> 3 <> 'concurrency' AND claim ->> 2 <> '0'
            GROUP BY 1, 2
            ON CONFLICT (counter, cell) DO UPDATE SET spent = cells.spent + EXCLUDED.spent;
        PERFORM let_go(v_ids);
    END IF;
    DELETE FROM leases WHERE owner IN (
        SELECT owner FROM leases WHERE until <= p_now FOR UPDATE SKIP LOCKED);
    DELETE FROM cells WHERE (counter, cell) IN (
        SELECT counter, cell FROM cells WHERE ends_at <= p_now AND held = 0 FOR UPDATE SKIP LOCKED);
    DELETE FROM counters WHERE counter IN (
        SELECT counter FROM counters WHERE NOT EXISTS (SELECT 1 FROM cells WHERE cells.counter = counters.counter)
        FOR UPDATE SKIP LOCKED);
    RETURN cardinality(v_ids);
END $$
"""

_TOKENS = """
CREATE TABLE tokens (key TEXT COLLATE "C" PRIMARY KEY, value BYTEA NOT NULL, until DOUBLE PRECISION);
CREATE TABLE token_locks (key TEXT COLLATE "C" PRIMARY KEY, owner TEXT NOT NULL, until DOUBLE PRECISION NOT NULL)
"""

_OBJECTS = """
CREATE TABLE provider_objects (
    kind TEXT NOT NULL, id TEXT COLLATE "C" NOT NULL, provider TEXT COLLATE "C" NOT NULL,
    account TEXT COLLATE "C" NOT NULL, model TEXT NOT NULL, alias TEXT NOT NULL, key TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL, about BYTEA NOT NULL,
    PRIMARY KEY (kind, id, provider));
CREATE INDEX provider_objects_account ON provider_objects (account, kind, at, id)
"""

_CACHE = """
ALTER TABLE entries ADD COLUMN model_tokens_saved BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cost_saved BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN model_tokens_saved BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cost_saved BIGINT NOT NULL DEFAULT 0;
CREATE TABLE cache_entries (
    id TEXT COLLATE "C" PRIMARY KEY, kind TEXT NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, server TEXT NOT NULL,
    tool TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, tags TEXT[] NOT NULL, partition TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL, until DOUBLE PRECISION NOT NULL, used DOUBLE PRECISION NOT NULL,
    size BIGINT NOT NULL, value BYTEA NOT NULL);
CREATE INDEX cache_entries_until ON cache_entries (until);
CREATE INDEX cache_entries_used ON cache_entries (used, size);
CREATE INDEX cache_entries_server ON cache_entries (server) WHERE server <> '';
CREATE INDEX cache_entries_partition ON cache_entries (partition, at) WHERE partition <> '';
CREATE TABLE cache_epochs (server TEXT PRIMARY KEY, epoch BIGINT NOT NULL)
"""
_SAVED_COLUMNS = "model_tokens_saved, cost_saved"
_SAVED_VALUES = "COALESCE(model_tokens_saved, 0), COALESCE(cost_saved, 0)"
"""Zero for entries of earlier versions, which do not have them."""


def _with_saved(function: str) -> str:
    """A function that writes entries, with what the cache saved."""
    return (
        function.replace(
            f"INSERT INTO entries ({_ENTRY_COLUMNS_2})", f"INSERT INTO entries ({_ENTRY_COLUMNS_2}, {_SAVED_COLUMNS})"
        )
        .replace(f"SELECT {_ENTRY_COLUMNS_2} FROM", f"SELECT {_ENTRY_COLUMNS_2}, {_SAVED_VALUES} FROM")
        .replace(f"({_ENTRY_2})", f"({_ENTRY_2}, model_tokens_saved BIGINT, cost_saved BIGINT)")
        .replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    )


_BATCHES = """
CREATE TABLE batches (
    id TEXT COLLATE "C" PRIMARY KEY, account TEXT COLLATE "C" NOT NULL, kind TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL, status TEXT NOT NULL, value BYTEA NOT NULL, owner TEXT NOT NULL,
    until DOUBLE PRECISION NOT NULL);
CREATE INDEX batches_account ON batches (account, kind, at, id);
CREATE INDEX batches_open ON batches (at, id) WHERE status IN ('validating', 'in_progress', 'cancelling');
CREATE TABLE batch_pieces (
    file TEXT COLLATE "C" NOT NULL, number INTEGER NOT NULL, account TEXT COLLATE "C" NOT NULL,
    at DOUBLE PRECISION NOT NULL, size INTEGER NOT NULL, data BYTEA NOT NULL, PRIMARY KEY (file, number));
CREATE INDEX batch_pieces_account ON batch_pieces (account, size);
CREATE INDEX batch_pieces_at ON batch_pieces (at);
CREATE TABLE batch_lines (
    batch TEXT COLLATE "C" NOT NULL, number INTEGER NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL,
    result BYTEA NOT NULL, PRIMARY KEY (batch, number))
"""

_REQUESTS = """
CREATE INDEX entries_parent ON entries (parent_id) WHERE parent_id <> '';
-- The terms of entries up to the transaction and number `indexed`.
CREATE TABLE entry_terms (
    seq BIGINT PRIMARY KEY REFERENCES entries ON DELETE CASCADE, terms BIGINT[] NOT NULL);
CREATE INDEX entry_terms_terms ON entry_terms USING gin (terms);
INSERT INTO facts VALUES ('indexed', '0/0')
"""

# The table `contents` stays for processes of the earlier version that are still running. No more words are indexed than
# the index of one row can hold.
_CONTENTS = """
CREATE TABLE request_contents (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id TEXT NOT NULL UNIQUE, at DOUBLE PRECISION NOT NULL,
    sent TEXT NOT NULL, answered TEXT NOT NULL,
    words TSVECTOR NOT NULL GENERATED ALWAYS AS (
        to_tsvector('simple'::regconfig, left(sent, 100000) || ' ' || left(answered, 100000))) STORED);
CREATE INDEX request_contents_at ON request_contents (at);
CREATE INDEX request_contents_words ON request_contents USING gin (words);
INSERT INTO request_contents (id, at, sent, answered) SELECT id, at, arguments, result FROM contents
"""

_ALERTS = """
CREATE TABLE alert_states (
    alert TEXT NOT NULL, subject TEXT NOT NULL, level DOUBLE PRECISION NOT NULL, since DOUBLE PRECISION NOT NULL,
    text TEXT NOT NULL, message TEXT NOT NULL, is_told BOOLEAN NOT NULL, PRIMARY KEY (alert, subject));
CREATE TABLE alert_leader (one INTEGER PRIMARY KEY, owner TEXT NOT NULL, until DOUBLE PRECISION NOT NULL)
"""

MIGRATIONS: list[tuple[str, ...]] = [
    (_TABLES, _LOCK, _RESERVE, _RESERVE_ALL, _LET_GO, _SETTLE, _EXPIRE),
    (_MORE_COLUMNS, _RESERVE_2, _RESERVE_ALL_2, _SETTLE_2, _EXPIRE_2),
    (_TOKENS,),
    (_OBJECTS,),
    (_BATCHES,),
    (_CACHE, _with_saved(_SETTLE_2), _with_saved(_EXPIRE_2)),
    (_REQUESTS,),
    (_CONTENTS,),
    (_ALERTS,),
]
"""Each is a few statements. The table `migrations` of a schema lists those that it has."""
