-- What the worker looks at every few seconds; every role may run it.

-- name: patience
-- The look waits for nobody.
select set_config('lock_timeout', '3s', true), set_config('statement_timeout', '10s', true),
       set_config('idle_in_transaction_session_timeout', '30s', true)

-- name: quiet
-- Whether nobody sets up or removes at this moment; until the transaction ends, nobody begins to.
select exists (select from ftstream.turn where name = 'schema' for key share skip locked)

-- name: turns
-- Whether there is such a lock, and this role may have it.
select coalesce(has_table_privilege(to_regclass('ftstream.turn'), 'update'), false)
       and current_setting('transaction_read_only') = 'off'

-- name: in_turn
-- Two workers do not note the same.
select from ftstream.turn where name = 'setup_seen' for update

-- name: kept
-- Whether this site keeps what was seen, and this role may read it.
select coalesce(has_table_privilege(to_regclass('ftstream.setup_seen'), 'select'), false)

-- name: noted
-- Whether this site has a place to note what was seen, and this role may.
select coalesce(has_table_privilege(to_regclass('ftstream.setup_seen'), 'insert'), false)
       and current_setting('transaction_read_only') = 'off'

-- name: fingerprints
-- Which relation each name means, with its triggers and its share in the publications: another one after a change,
-- and after a change back.
select t.name, concat_ws(' ', c.oid,
    (select string_agg(concat_ws(':', g.tgname, g.oid, g.xmin), ',' order by g.tgname)
     from pg_trigger g where g.tgrelid = c.oid and g.tgname = any(%(triggers)s::text[])),
    (select string_agg(concat_ws(':', p.pubname, p.oid, p.xmin, r.oid, r.xmin), ',' order by p.pubname)
     from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
     where r.prrelid = c.oid and p.pubname = any(%(publications)s::text[])))
from unnest(%(tables)s::text[]) as t(name) join pg_class c on c.oid = to_regclass(t.name)

-- name: closing
-- Whether nobody else closes a gap of this site; until the transaction ends, nobody begins to.
select exists (select from ftstream.turn where name = 'gap' for update skip locked)

-- name: patient
-- A comparison of large tables takes longer than a session may be idle in a transaction.
set local idle_in_transaction_session_timeout = '1h'
