-- Runs of flows captured by batch: whose turn it is, when they are due, and what came of them.

-- name: begin_turn
-- One run at a time: the lock lasts as long as the transaction, which is ended if its worker is frozen.
select set_config('idle_in_transaction_session_timeout', %(patience)s, true),
       (select true from ftstream.turn where name = 'batch ' || %(flow)s for update skip locked) as alone

-- name: name_turn
-- Makes the row that is locked during a run.
insert into ftstream.turn values ('batch ' || %(flow)s) on conflict do nothing

-- name: keep_turn
-- Fails once PostgreSQL has ended the transaction.
select 1

-- name: due
-- What is to run now.
select entity_type from ftstream.sync_status
where source = %(flow)s and coalesce(next_sync_at <= clock_timestamp(), true)

-- name: set_interval
-- What the settings say; the next run comes by it, not by an interval that was longer.
update ftstream.sync_status s
set sync_interval = i.length,
    next_sync_at = case when s.next_sync_at is not null then least(s.next_sync_at, clock_timestamp() + i.length) end
from (select make_interval(secs => %(seconds)s) as length) i
where s.source = %(flow)s and s.sync_interval <> i.length

-- name: begun
-- Shows that it runs. When it is due stays as it is: should the run die, another begins at once.
update ftstream.sync_status set status = 'syncing', updated_at = clock_timestamp()
where source = %(flow)s and entity_type = any(%(entity_types)s)

-- name: interrupted
-- It does not run any more, and has not failed.
update ftstream.sync_status set status = 'pending', updated_at = clock_timestamp()
where source = %(flow)s and entity_type = any(%(entity_types)s) and status = 'syncing'

-- name: done
-- Moves the status once every message is in Kafka. The next run is due whole intervals after this one was:
-- runs that were missed meanwhile are made up for by this one.
update ftstream.sync_status s
set status = 'synced', last_synced_at = clock_timestamp(), updated_at = clock_timestamp(), last_error = null,
    consecutive_failures = 0, records_synced = s.records_synced + r.published,
    next_sync_at = case when s.next_sync_at > t.now then s.next_sync_at
        else coalesce(s.next_sync_at, t.now) + s.sync_interval
             * (1 + floor(coalesce(extract(epoch from t.now - s.next_sync_at), 0)
                          / extract(epoch from s.sync_interval))) end
from json_to_recordset(%(runs)s) as r(entity_type text, published bigint), (select clock_timestamp() as now) t
where s.source = %(flow)s and s.entity_type = r.entity_type

-- name: failed
-- Tries again: after ten seconds, then ever later, up to the interval.
update ftstream.sync_status s
set status = 'failed', updated_at = clock_timestamp(), last_error = %(error)s,
    consecutive_failures = s.consecutive_failures + 1, records_failed = s.records_failed + r.failed,
    records_synced = s.records_synced + r.published,
    next_sync_at = clock_timestamp()
        + least(s.sync_interval, interval '10 seconds' * (2 ^ least(s.consecutive_failures, 10)))
from json_to_recordset(%(runs)s) as r(entity_type text, failed bigint, published bigint)
where s.source = %(flow)s and s.entity_type = r.entity_type

-- name: log_runs
-- A run is a row of sync_log for each table.
insert into ftstream.sync_log (outcome, table_name, entity_id, topic, source_time, details)
select r.outcome, r.table_name, '', r.topic, to_timestamp(r.read_at / 1000000.0), r.details
from json_to_recordset(%(runs)s)
    as r(outcome ftstream.outcome, table_name text, topic text, read_at bigint, details jsonb)

-- name: status
-- How each table stands, and its last run.
select d.entity_type, d.status, d.health_status, d.last_synced_at, d.next_sync_at, d.sync_interval,
       d.records_synced, d.records_failed, d.consecutive_failures, s.last_error, l.details
from ftstream.v_sync_dashboard d
join ftstream.sync_status s using (source, entity_type)
left join lateral (
    select l.details from ftstream.sync_log l
    where l.outcome in ('run_done', 'run_failed') and l.topic = %(topics)s::jsonb ->> d.entity_type
      and l.entity_id = ''
    order by l.logged_at desc limit 1) l on true
where d.source = %(flow)s

-- name: source
-- Which server this is, and what the transaction sees of it: on External.
select c.system_identifier::text,
       ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer as timeline,
       (extract(epoch from now()) * 1000000)::bigint as read_at, pg_current_snapshot()::text
from pg_control_system() c

-- name: target
-- What the transaction sees: on Supabase.
select pg_current_snapshot()::text

-- name: known_bases
-- What the last run of each table read.
select table_name, system_identifier, timeline, 0, source_seen::text, target_seen::text
from ftstream.batch_source where flow = %(flow)s

-- name: note_basis
-- What this one has read.
insert into ftstream.batch_source (flow, table_name, system_identifier, timeline, source_seen, target_seen)
select %(flow)s, t.name, %(system)s, %(timeline)s, %(source)s::pg_snapshot, %(target)s::pg_snapshot
from unnest(%(tables)s::text[]) t(name)
on conflict (flow, table_name) do update
set (system_identifier, timeline, source_seen, target_seen)
  = (excluded.system_identifier, excluded.timeline, excluded.source_seen, excluded.target_seen)

-- name: parked_rows
-- Rows of which a change waits here, dead ones too, and whether it is a delete, or a value that a column here
-- does not hold.
select entity_id, bool_or(operation = 'delete'), bool_or(sqlstate = 'FT017' or sqlstate like '22%%')
from ftstream.parked_change where table_name = %(name)s group by 1

-- name: existing
-- Which of these rows there are.
select e.id from unnest(%(ids)s::text[]) e(id) join {table} t on t.{key} = e.id::{key_type}

-- name: references
-- The foreign keys between these tables, with their columns as lists, for the aliases c (child) and t (parent).
select cn.nspname || '.' || c.relname as child, pn.nspname || '.' || p.relname as parent,
       k.child_columns, k.parent_columns
from unnest(%(tables)s::text[]) x(name)
join pg_constraint f on f.contype = 'f' and f.conparentid = 0 and f.conrelid = to_regclass(x.name)
join pg_class c on c.oid = f.conrelid join pg_namespace cn on cn.oid = c.relnamespace
join pg_class p on p.oid = f.confrelid join pg_namespace pn on pn.oid = p.relnamespace,
lateral (
    select string_agg(format('c.%%I', a.attname), ', ' order by u.n) as child_columns,
           string_agg(format('t.%%I', b.attname), ', ' order by u.n) as parent_columns
    from unnest(f.conkey, f.confkey) with ordinality as u(child, parent, n)
    join pg_attribute a on (a.attrelid, a.attnum) = (f.conrelid, u.child)
    join pg_attribute b on (b.attrelid, b.attnum) = (f.confrelid, u.parent)) k
where f.confrelid = any(array(select to_regclass(n)::oid from unnest(%(tables)s::text[]) n))
order by 1, 2, f.conname

-- name: referred_to
-- Which of these rows others refer to.
select e.id from unnest(%(ids)s::text[]) e(id) join {table} t on t.{key} = e.id::{key_type}
where exists (select from {child} c where ({child_columns}) = ({parent_columns}))

-- name: unwritten
-- Which of these rows have not been written since a snapshot. A row's xmin has 32 of the 64 bits: the others
-- are those of the next number, or one less. A snapshot has no savepoints: of a transaction that was under way
-- then, what was written in one passes for older. Surely older is only what began before all that was under way.
with now as (
    select n.id / 4294967296 as epoch, n.id %% 4294967296 as low
    from (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as id) n)
select e.id
from unnest(%(ids)s::text[]) e(id) join {table} t on t.{key} = e.id::{key_type}, now n,
     lateral (select t.xmin::text::bigint as low) x,
     lateral (select (greatest(n.epoch - (x.low > n.low)::integer, 0) * 4294967296 + x.low)::text::xid8 as id) w
where case when %(surely)s then w.id < pg_snapshot_xmin(%(seen)s::pg_snapshot)
           else pg_visible_in_snapshot(w.id, %(seen)s::pg_snapshot) end

-- name: applied
-- Which of these rows are as ftstream has written them: its transaction has logged them too.
select e.id
from unnest(%(ids)s::text[]) e(id) join {table} t on t.{key} = e.id::{key_type}
where exists (select from ftstream.sync_log l
              where l.entity_id = e.id and l.table_name = {name} and l.xmin = t.xmin and l.kafka_offset is not null)

-- name: log_edits
-- What was edited here and is about to be undone, with the rows as they were edited; a run that repeats does
-- not log it again.
insert into ftstream.sync_log (operation, outcome, table_name, entity_id, topic, details)
select (case when t.{key} is null then 'delete' else 'update' end)::ftstream.operation, 'superseded',
       {name}, e.id, %(topic)s, pg_catalog.to_jsonb(t)
from unnest(%(ids)s::text[]) e(id) left join {table} t on t.{key} = e.id::{key_type}
where not exists (
    select from ftstream.sync_log l
    where l.entity_id = e.id and l.table_name = {name} and l.kafka_offset is null
      and l.details is not distinct from pg_catalog.to_jsonb(t)
      and l.logged_at > (select s.last_synced_at from ftstream.sync_status s
                         where s.source = %(flow)s and s.entity_type = %(entity_type)s))

-- name: keep_rows
-- Keeps rows that are about to be deleted: that they are gone at the source is inferred, nobody has said so.
insert into ftstream.displaced (table_name, entity_id, reason, image)
select {name}, e.id, 'about to be deleted by a run: its owner does not have it', pg_catalog.to_jsonb(t)
from unnest(%(ids)s::text[]) e(id) join {table} t on t.{key} = e.id::{key_type}
where not exists (select from ftstream.displaced d
                  where d.table_name = {name} and d.entity_id = e.id and d.image = pg_catalog.to_jsonb(t))
