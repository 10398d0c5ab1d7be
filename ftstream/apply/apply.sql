-- name: session
-- Makes the transaction ftstream's own, which guards and capture let by; it gives way to users.
select set_config('ftstream.applying', 'on', true),
       set_config('statement_timeout', %(statement_timeout)s, true),
       set_config('lock_timeout', %(lock_timeout)s, true),
       -- A worker that is frozen, or whose cable was pulled, must not hold its locks for hours.
       set_config('idle_in_transaction_session_timeout', '10s', true)

-- name: share
-- Beside other workers of the flow.
select from ftstream.turn where name = 'apply ' || %(flow)s for key share

-- name: alone
-- While no other worker of the flow applies anything.
select from ftstream.turn where name = 'apply ' || %(flow)s for update

-- name: name_turn
-- Makes the row that is locked while a flow is applied.
insert into ftstream.turn values ('apply ' || %(flow)s) on conflict do nothing

-- name: advance_offsets
-- Moves the applied offsets from where this worker left them; aborts when another worker moved them.
with moved as (
    update ftstream.applied_offset a
    set next_offset = b.next, source_position = coalesce(b.position, a.source_position),
        record_digest = b.digest, updated_at = now()
    from json_to_recordset(%(offsets)s)
        as b(topic text, partition integer, expected bigint, next bigint, position bigint, digest bigint)
    where (a.topic, a.kafka_partition, a.next_offset) = (b.topic, b.partition, b.expected)
    returning 1
)
select ftstream.require(count(*) = %(partitions)s, 'FT001', 'the applied offsets have moved') from moved

-- name: delete
-- Deletes rows by id.
delete from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[])

-- name: release
-- What refers to these rows lets go of them, as its foreign key says; aborts where it forbids the delete.
select ftstream.release_children({name}::regclass, %(ids)s::text[], %(carried)s::text[]::regclass[])

-- name: displace
-- Takes rows out of the way and keeps them.
with displaced as (delete from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[]) returning t.*)
insert into ftstream.displaced (table_name, entity_id, reason, image)
select {name}, d.{key}::text, 'held a unique value of another row; its owner has no such row', pg_catalog.to_jsonb(d)
from displaced d

-- name: upsert
-- Inserts or replaces whole rows from Debezium's images.
insert into {table} as t ({columns}) overriding system value
select {values} from json_to_recordset(%(images)s) as r({wire_columns})
on conflict ({key}) do {update}

-- name: renumber
-- Gives rows the identity values of these images, which no update can assign: such a row is taken out and put
-- back with all else that it holds. All are out before the first is back (order by), so numbers can be swapped.
with out as (
    delete from {table} as t using json_to_recordset(%(images)s) as r({wire_columns})
    where {same_row} and row({held}) is distinct from row({numbers})
    returning {kept}
)
insert into {table} ({columns}) overriding system value select {columns} from out order by {key}

-- name: patch
-- Updates rows, leaving alone the columns that the log did not hold; aborts when a row is missing.
with patched as (
    update {table} as t set {assignments}
    from json_to_recordset(%(images)s) as r({wire_columns}, ftstream_unavailable text[])
    where {same_row}
    returning 1
)
select ftstream.require(count(*) = %(rows)s, 'FT002', 'rows to complete are missing') from patched

-- name: unchanged
-- Aborts if a table was altered since its columns were read: values could be rounded unseen.
select ftstream.require_unchanged(%(tables)s::oid[], %(seen)s::text[])

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
-- The applied offset of each of these partitions, and the digest of the record before it.
select a.topic, a.kafka_partition, a.next_offset, a.record_digest from ftstream.applied_offset a
join json_to_recordset(%(partitions)s) as r(topic text, partition integer)
  on (a.topic, a.kafka_partition) = (r.topic, r.partition)

-- name: resume
-- Moves an applied offset to where the log goes on, unless somebody else has moved it.
update ftstream.applied_offset
set next_offset = %(resume)s, record_digest = null, source_position = null, updated_at = now()
where (topic, kafka_partition, next_offset) = (%(topic)s, %(partition)s, %(applied)s)

-- name: in_recovery
-- Whether the server is a standby, which may lack what its primary's log has told already.
select pg_is_in_recovery()

-- name: all_visible
-- Whether these transactions, by the low half of their ids, are visible to this snapshot; whether it is
-- a standby's. Logical decoding sends a commit before other sessions see it; with a synchronous standby,
-- long before. The whole id is the one nearest to the snapshot's end, which may lie a little below it.
-- One that committed ten minutes ago is visible, or of another cluster: the source was recreated. One that is to commit
-- ten minutes from now, or a million transactions, somebody has made up: nothing waits for it.
select coalesce(bool_and(pg_visible_in_snapshot(greatest(0, e.id)::text::xid8, s.now) or e.id > s.top + 1000000
                         or coalesce(abs(x.time / 1000000 - extract(epoch from now())) > 600, false)), true),
       pg_is_in_recovery()
from (select pg_current_snapshot() as now, pg_snapshot_xmax(pg_current_snapshot())::text::bigint as top) s,
     unnest(%(transactions)s::bigint[], %(times)s::bigint[]) as x(id, time),
     lateral (select (s.top & ~4294967295::bigint) | (x.id & 4294967295) as near) n,
     lateral (select case when n.near - s.top > 2147483648 then n.near - 4294967296
                          when s.top - n.near > 2147483648 then n.near + 4294967296
                          else n.near end as id) e

-- name: read_rows
-- Rows as the owner holds them now, each column as text, so that no type loses anything.
select t.{key}::text as id, json_object(array[{names}], array[{texts}])::text as image
from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[])

-- name: existing
-- Which of these ids the target has.
select t.{key}::text from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[])

-- name: blockers
-- The rows that hold a unique value of these images under another id.
select t.{key}::text from json_to_recordset(%(images)s) as r({wire_columns}, {key} text)
join {table} as t on {matches}
where t.{key}::text <> r.{key}

-- name: locked
-- Which of these rows others hold: those that are there and cannot be locked at once.
select t.{key}::text from {table} t where t.{key} = any(%(ids)s::text[]::{key_type}[])
except all
select l.id from (select t.{key}::text as id from {table} t where t.{key} = any(%(ids)s::text[]::{key_type}[])
                  for update skip locked) l
