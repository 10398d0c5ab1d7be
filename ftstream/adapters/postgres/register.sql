-- Applies changes that both sites may make: the greatest write of each entity stays (core/register.py has
-- the same rule for readers). They are statements of their own, one after the other, because a statement
-- does not see rows that were committed while it waited: with all in one, a delete missed a row that was
-- just being inserted, and the sites stayed different.

-- name: lock_rows
-- Rows first, in the order of their keys, as a user's own write takes its locks: row, then last_write.
select from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[]) order by t.{key} for update

-- name: advance_last_write
-- Notes the greatest of the write that came and the one that there was, and that it came. Not of an entity
-- that nobody knows, if the write is older than the tombstones that are gone.
insert into ftstream.last_write as w (table_name, entity_id, version, site, operation, received, received_before)
select r."table", r.id, r.version, r.site, r.op, r.version, 0
from json_to_recordset(%(writes)s)
         as r("table" text, id text, op ftstream.operation, version bigint, site ftstream.site)
where not exists (select from ftstream.horizon h where h.table_name = r."table" and h.version >= r.version)
   or exists (select from ftstream.last_write k where (k.table_name, k.entity_id) = (r."table", r.id))
order by r."table", r.id
on conflict (table_name, entity_id) do update
set (version, site, operation, received, received_before) = (
    select x.version, x.site, x.operation, greatest(w.received, excluded.version), w.received
    from (values (w.version, w.site, w.operation),
                 (excluded.version, excluded.site, excluded.operation)) as x(version, site, operation)
    order by x.version desc, x.site = {tie} desc limit 1)

-- name: require_lost
-- Aborts unless each of these writes has come before, and lost to a greater one: then it has no effect, and
-- nothing is locked for it. Neither is ever undone, so a plain look is enough.
select ftstream.require(count(*) = %(count)s, 'FT008', 'a write that seemed to have lost has not')
from json_to_recordset(%(lost)s) as r("table" text, id text, version bigint, site ftstream.site)
join ftstream.last_write w on (w.table_name, w.entity_id) = (r."table", r.id)
where r.version <= w.received and (w.version, w.site = {tie}) > (r.version, r.site = {tie})

-- name: delete_won
-- Deletes the rows whose last write is this delete.
delete from {table} as t
using json_to_recordset(%(messages)s) as m(id text, version bigint, site ftstream.site)
join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = ({name}, m.id, m.version, m.site)
where t.{key} = m.id::{key_type}

-- name: upsert_won
-- Writes the rows whose last write is this one.
insert into {table} as t ({columns})
select {values}
from json_to_recordset(%(messages)s)
         as m(id text, version bigint, site ftstream.site, json_nulls text[], "row" json)
join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = ({name}, m.id, m.version, m.site)
cross join lateral json_to_record(m."row") as r({wire_columns})
on conflict ({key}) do update set {assignments}

-- name: require_parents
-- All that the rows written refer to is here.
select ftstream.require_parents(%(table)s::regclass, array(
    select m.id from json_to_recordset(%(messages)s) as m(id text, version bigint, site ftstream.site)
    join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = (%(name)s, m.id, m.version, m.site)))

-- name: release_children
-- What refers to the rows that are to be deleted lets go of them, as its foreign key says.
select ftstream.release_children(%(table)s::regclass, array(
    select m.id from json_to_recordset(%(messages)s) as m(id text, version bigint, site ftstream.site)
    join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = (%(name)s, m.id, m.version, m.site)),
    %(carried)s::text[]::regclass[])

-- name: parent_image
-- A row that others refer to, at its source.
select ftstream.parent_image(%(parent)s::regclass, %(columns)s::text[], %(key)s::text[])::text

-- name: parents_of
-- What a row refers to: table, columns and key.
select f.parent_name, f.names,
       (select array_agg(%(image)s::jsonb ->> c.attname order by u.n)
        from unnest(k.conkey) with ordinality as u(attnum, n)
        join pg_attribute c on (c.attrelid, c.attnum) = (k.conrelid, u.attnum)) as key
from ftstream.foreign_keys f join pg_constraint k on k.conrelid = f.child and k.conname = f.name and k.contype = 'f'
where f.child = %(parent)s::regclass

-- name: require_exact
-- Its values are held here as they are at its source.
select ftstream.require_exact(%(parent)s::regclass, %(image)s::jsonb)

-- name: carry_parent
-- Puts it here, if nothing is in its way.
select ftstream.carry_parent(%(parent)s::regclass, %(image)s::jsonb)

-- name: log_writes
-- One sync_log row per change, with what became of it, and the change itself: a loser's words are here.
with logged as (
    insert into ftstream.sync_log
        (operation, outcome, table_name, entity_id, topic, kafka_partition, kafka_offset, source_time, lag_ms, change)
    select r.op, case
               when w.entity_id is null then 'refused'
               -- Of what was passed by (require_lost), nothing was noted: what was received is as it was.
               when r.version <= case when r.lost then w.received else w.received_before end then 'duplicate'
               when not r.newest then 'superseded'
               when (w.version, w.site) = (r.version, r.site) then 'applied'
               when w.site = r.site or (r.op, w.operation) = ('delete', 'delete') then 'superseded'
               when w.operation = 'delete' then 'conflict_update_delete'
               when r.op = 'delete' then 'conflict_delete_update'
               when (r.op, w.operation) = ('insert', 'insert') then 'conflict_insert_insert'
               else 'conflict_update_update' end::ftstream.outcome,
           r."table", r.id, r.topic, r.partition, r."offset", s.at,
           (extract(epoch from clock_timestamp() - s.at) * 1000)::bigint, r.change
    from json_to_recordset(%(changes)s) as r(
             op ftstream.operation, "table" text, id text, version bigint, site ftstream.site, newest boolean,
             lost boolean, topic text, partition integer, "offset" bigint, change jsonb)
    left join ftstream.last_write w on (w.table_name, w.entity_id) = (r."table", r.id),
         lateral (select to_timestamp(0) + (r.version / 1000000) * interval '1 second'
                       + (r.version %% 1000000) * interval '1 microsecond' as at) s
    returning outcome, lag_ms
)
select outcome::text, count(*), min(lag_ms) from logged group by outcome

-- name: table_locked
-- Whether another session holds one of these tables as a whole.
select exists (
    select from pg_locks l
    where l.relation = any(%(tables)s::text[]::regclass[]) and l.granted and l.pid <> pg_backend_pid()
      and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))

-- name: restore_alone
-- Gives rows that were deleted and inserted again what the target alone holds of them.
update {table} as t set {assignments}
from json_to_recordset(%(images)s) as r({wire_columns}, ftstream_key text) where t.{key}::text = r.ftstream_key

-- name: holders
-- The last writes of these rows, which hold what another row wants; held until the transaction ends.
select w.entity_id, w.version, w.site::text from ftstream.last_write w
where w.table_name = %(table)s and w.entity_id = any(%(ids)s::text[]) order by w.entity_id for update

-- name: refusals
-- How often a row was refused lately.
select count(*) from ftstream.sync_log
where entity_id = %(id)s and table_name = %(table)s and outcome = 'refused'
  and logged_at > now() - interval '10 minutes'

-- name: answer
-- Tells the other site how this row is here, in a version that it cannot but take.
select ftstream.hand_over_again(
    %(target)s::regclass, array[%(id)s::text],
    array[greatest((extract(epoch from clock_timestamp()) * 1000000)::bigint, %(version)s::bigint + 1)], 'ftstream', false)

-- name: note_received
-- Notes that a write came, which has no effect.
update ftstream.last_write set received_before = received, received = greatest(received, %(version)s)
where (table_name, entity_id) = (%(table)s, %(id)s)

-- name: log_refusal
-- The write that was refused, whole.
insert into ftstream.sync_log
    (operation, outcome, table_name, entity_id, topic, kafka_partition, kafka_offset, source_time, lag_ms, change)
select %(op)s, 'refused', %(table)s, %(id)s, %(topic)s, %(partition)s, %(offset)s, s.at,
       (extract(epoch from clock_timestamp() - s.at) * 1000)::bigint, %(change)s::jsonb
from (select to_timestamp(0) + (%(version)s::bigint / 1000000) * interval '1 second'
           + (%(version)s::bigint %% 1000000) * interval '1 microsecond' as at) s
