-- Sites that go back in time: see migration 023.

-- name: may
-- Whether there is such a table, and this role has this right on it.
select coalesce(has_table_privilege(to_regclass('ftstream.lineage'), %(right)s), false)

-- name: seen
-- How far the other site was seen to be.
select counter from ftstream.lineage where site = %(site)s

-- name: count
-- Counts on, unless this site has counted less than was seen of it; how far it was before, and how far it is.
with before as (select counter from ftstream.lineage where site = %(site)s)
insert into ftstream.lineage as l (site, counter, system_identifier)
select %(site)s, 1, c.system_identifier::text from pg_control_system() c
on conflict (site) do update
set counter = l.counter + case when l.counter < %(seen)s then 0 else 1 end,
    system_identifier = excluded.system_identifier, counted_at = clock_timestamp()
returning coalesce((select counter from before), 0), l.counter, l.system_identifier

-- name: read
-- How far this site has counted.
select counter from ftstream.lineage where site = %(site)s

-- name: keep
-- What was seen of the other site.
insert into ftstream.lineage as l (site, counter, system_identifier)
values (%(site)s, %(counter)s, %(system)s)
on conflict (site) do update
set counter = greatest(l.counter, excluded.counter), system_identifier = excluded.system_identifier,
    counted_at = clock_timestamp()

-- name: accept
-- What was seen of the other site counts no more: it begins where it is now.
delete from ftstream.lineage where site = %(site)s

-- name: gone_back
-- How many bytes of its log are applied here, of these topics, that it does not have.
select coalesce(max(a.source_position), 0) from ftstream.applied_offset a where a.topic = any(%(topics)s::text[])

-- name: position
-- Where its log ends, as Debezium counts.
select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint

-- name: forget_position
-- Positions of a log that is another now.
update ftstream.applied_offset set source_position = null where topic = any(%(topics)s::text[])

-- name: break
-- What was written to these tables may be missing on the other site, though capture was well.
insert into ftstream.gap (flow, table_name, reason, since, until, last)
select r.flow, r.name, 'the site was restored to an earlier state', clock_timestamp(), clock_timestamp(), pg_current_xact_id()
from json_to_recordset(%(tables)s) as r(flow text, name text)
