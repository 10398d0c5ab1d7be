-- Times in which the capture of a table was broken, as the site keeps them whose table it is.

-- name: gaps
-- Those of this site, the oldest first. One is settled once every transaction has ended that was running when it
-- was over: what they wrote may not have been captured.
select g.id, g.flow, g.table_name as "table", g.reason,
       extract(epoch from g.since)::float8, extract(epoch from g.until)::float8,
       coalesce(pg_snapshot_xmin(pg_current_snapshot()) >= g.last, false) as settled
from ftstream.gap g order by g.found_at, g.id

-- name: seen
-- What the capture of each table was made of when it was last seen to be well.
select s.table_name, s.fingerprint from ftstream.setup_seen s

-- name: see
-- Notes that the capture of these tables is well.
insert into ftstream.setup_seen (table_name, fingerprint, seen_at)
select r.name, r.fingerprint, clock_timestamp() from json_to_recordset(%(seen)s) as r(name text, fingerprint text)
on conflict (table_name) do update set fingerprint = excluded.fingerprint, seen_at = excluded.seen_at

-- name: open
-- A gap has begun when the table was last seen to be well, unless it has one that lasts; `over`: it lasts no more.
insert into ftstream.gap (flow, table_name, reason, since, until, last)
select %(flow)s, s.table_name, %(reason)s, s.seen_at, case when %(over)s then clock_timestamp() end,
       case when %(over)s then pg_current_xact_id() end
from ftstream.setup_seen s where s.table_name = %(table)s
on conflict (table_name) where until is null do nothing

-- name: close
-- The gaps of these tables are over.
update ftstream.gap set until = clock_timestamp(), last = pg_current_xact_id()
where table_name = any(%(tables)s::text[]) and until is null

-- name: kept
-- How many rows were overwritten since a gap of their table began: what they were is kept, since nobody has told it.
select count(*) from ftstream.displaced d, ftstream.gap g
where g.id = %(gap)s and (d.table_name, d.reason) = (%(table)s, %(reason)s) and d.displaced_at >= g.since

-- name: compared
-- Both sites were compared since these were settled: they are no more.
delete from ftstream.gap where id = any(%(ids)s::bigint[])
