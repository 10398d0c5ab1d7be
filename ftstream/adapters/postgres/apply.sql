-- name: session
-- Makes the transaction ftstream's own, which guards and capture let by; it gives way to users.
select set_config('ftstream.applying', 'on', true),
       set_config('statement_timeout', %(statement_timeout)s, true),
       set_config('lock_timeout', %(lock_timeout)s, true)

-- name: exact_text
-- Values as text that every server reads alike.
select set_config('datestyle', 'ISO, YMD', true), set_config('intervalstyle', 'postgres', true),
       set_config('timezone', 'UTC', true), set_config('extra_float_digits', '1', true),
       set_config('bytea_output', 'hex', true)

-- name: own_names
-- Behind a transaction pooler the session may hold what another client has SET there: names of types
-- and operators mean what the role's own search_path says.
set local search_path to default

-- name: replica
-- Supabase lifts the plain SET statement only, not set_config().
set local session_replication_role = replica

-- name: advance_offsets
-- Moves the applied offsets from where this worker left them; aborts when another worker moved them.
with moved as (
    update ftstream.applied_offset a
    set next_offset = b.next, source_position = coalesce(b.position, a.source_position), updated_at = now()
    from json_to_recordset(%(offsets)s) as b(topic text, partition integer, expected bigint, next bigint, position bigint)
    where (a.topic, a.kafka_partition, a.next_offset) = (b.topic, b.partition, b.expected)
    returning 1
)
select ftstream.require(count(*) = %(partitions)s, 'FT001', 'the applied offsets have moved') from moved

-- name: delete
-- Deletes rows by id.
delete from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[])

-- name: displace
-- Takes rows out of the way and keeps them.
with displaced as (delete from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[]) returning t.*)
insert into ftstream.displaced (table_name, entity_id, reason, image)
select {name}, d.{key}::text, 'held a unique value of another row; its owner has no such row', to_jsonb(d)
from displaced d

-- name: upsert
-- Inserts or replaces whole rows from Debezium's images.
insert into {table} as t ({columns})
select {values} from json_to_recordset(%(images)s) as r({wire_columns})
on conflict ({key}) do update set {assignments}

-- name: patch
-- Updates rows, leaving alone the columns that the log did not hold; aborts when a row is missing.
with patched as (
    update {table} as t set {assignments}
    from json_to_recordset(%(images)s) as r({wire_columns}, ftstream_unavailable text[])
    where t.{key} = {key_value}
    returning 1
)
select ftstream.require(count(*) = %(rows)s, 'FT002', 'rows to complete are missing') from patched

-- name: log
-- One sync_log row per change.
insert into ftstream.sync_log
    (operation, outcome, table_name, entity_id, topic, kafka_partition, kafka_offset,
     source_position, source_time, lag_ms)
select r.op, r.outcome, r."table", r.id, r.topic, r.partition, r."offset", r.position,
       s.at, (extract(epoch from clock_timestamp() - s.at) * 1000)::bigint
from json_to_recordset(%(rows)s) as r(
         op ftstream.operation, outcome ftstream.outcome, "table" text, id text, topic text,
         partition integer, "offset" bigint, position bigint, "time" bigint),
     lateral (select to_timestamp(0) + (r."time" / 1000000) * interval '1 second'
                   + (r."time" %% 1000000) * interval '1 microsecond' as at) s

-- name: ensure_offsets
-- A row for each assigned partition that has none yet: nothing of it is applied.
insert into ftstream.applied_offset (topic, kafka_partition, next_offset)
select r.topic, r.partition, 0 from json_to_recordset(%(partitions)s) as r(topic text, partition integer)
on conflict do nothing

-- name: applied_offsets
-- The applied offset of each of these partitions.
select a.topic, a.kafka_partition, a.next_offset from ftstream.applied_offset a
join json_to_recordset(%(partitions)s) as r(topic text, partition integer)
  on (a.topic, a.kafka_partition) = (r.topic, r.partition)

-- name: in_recovery
-- Whether the server is a standby, which may lack what its primary's log has told already.
select pg_is_in_recovery()

-- name: all_visible
-- Whether these transactions, by the low half of their ids, are visible to this snapshot.
-- Logical decoding sends a commit before other sessions see it; with a synchronous standby, long before.
select coalesce(bool_and(pg_visible_in_snapshot(
           (case when e.id > s.top then e.id - 4294967296 else e.id end)::text::xid8, s.now)), true)
from (select pg_current_snapshot() as now, pg_snapshot_xmax(pg_current_snapshot())::text::bigint as top) s,
     unnest(%(transactions)s::bigint[]) x,
     lateral (select (s.top & ~4294967295) | (x & 4294967295) as id) e

-- name: read_rows
-- Rows as the owner holds them now, each column as text, so that no type loses anything.
select t.{key}::text as id, json_object(array[{names}], array[{texts}])::text as image
from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[])

-- name: record_status
-- Adds what was applied since the last time to sync_status.
update ftstream.sync_status s
set status = 'synced', updated_at = now(), consecutive_failures = 0,
    records_synced = s.records_synced + r.records,
    last_synced_at = case when r.records > 0 then now() else s.last_synced_at end,
    last_heartbeat_at = coalesce(to_timestamp(r.heartbeat), s.last_heartbeat_at)
from json_to_recordset(%(rows)s) as r(source text, entity_type text, records bigint, heartbeat double precision)
where (s.source, s.entity_type) = (r.source, r.entity_type)

-- name: maintain
-- Makes tomorrow's partitions of sync_log and drops those past their time.
select ftstream.maintain_sync_log(%(keep_days)s)

-- name: existing
-- Which of these ids the target has.
select t.{key}::text from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[])

-- name: blockers
-- The rows that hold a unique value of these images under another id.
select t.{key}::text from json_to_recordset(%(images)s) as r({wire_columns}, {key} text)
join {table} as t on {matches}
where t.{key}::text <> r.{key}
