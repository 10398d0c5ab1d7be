-- Writes the rows whose last write has come: last_write/advance.sql has decided which. Statements of their own, one
-- after the other, because a statement does not see rows that were committed while it waited: with all in one, a
-- delete missed a row that was just being inserted, and the sites stayed different.

-- name: lock_rows
-- Rows first, in the order of their keys, as a user's own write takes its locks: row, then last_write.
select from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[]) order by t.{key} for update

-- name: keep_unnoted
-- Keeps what these rows were before their last write, as long as edits of them here may not have been captured:
-- nobody else has those words.
insert into ftstream.displaced (table_name, entity_id, reason, image)
select {name}, t.{key}::text, {reason}, pg_catalog.to_jsonb(t)
from json_to_recordset(%(messages)s) as m(id text, version bigint, site ftstream.site)
join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = ({name}, m.id, m.version, m.site)
join {table} as t on t.{key} = m.id::{key_type}
where (select exists (select from ftstream.gap g where g.table_name = {qualified})
              or 2 > (select count(*) from pg_trigger g where g.tgenabled = 'A' and (g.tgrelid, g.tgname)
                      in (({qualified}::regclass, 'ftstream_capture'),
                          ('ftstream.last_write'::regclass, 'ftstream_hand_over'))))

-- name: delete_won
-- Deletes the rows whose last write is this delete.
delete from {table} as t
using json_to_recordset(%(messages)s) as m(id text, version bigint, site ftstream.site)
join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = ({name}, m.id, m.version, m.site)
where t.{key} = m.id::{key_type}

-- name: upsert_won
-- Writes the rows whose last write is this one.
insert into {table} as t ({columns}) overriding system value
select {values}
from json_to_recordset(%(messages)s)
         as m(id text, version bigint, site ftstream.site, json_nulls text[], "row" json)
join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = ({name}, m.id, m.version, m.site)
cross join lateral json_to_record(m."row") as r({wire_columns})
on conflict ({key}) do {update}

-- name: renumber_won
-- As `renumber` (apply.sql), of the rows whose last write is this one.
with out as (
    delete from {table} as t
    using json_to_recordset(%(messages)s) as m(id text, version bigint, site ftstream.site, "row" json)
    join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = ({name}, m.id, m.version, m.site)
    cross join lateral json_to_record(m."row") as r({wire_columns})
    where {same_row} and row({held}) is distinct from row({numbers})
    returning {kept}
)
insert into {table} ({columns}) overriding system value select {columns} from out order by {key}

-- name: log_writes
-- One sync_log row per change, with what became of it, and the change itself: a loser's words are here.
with logged as (
    insert into ftstream.sync_log
        (operation, outcome, table_name, entity_id, topic, kafka_partition, kafka_offset, source_time, lag_ms, change)
    select r.op, case
               -- A refusal of a write that there is no more.
               when r.refusal and not r.taken then 'superseded'
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
             lost boolean, refusal boolean, taken boolean, topic text, partition integer, "offset" bigint, change jsonb)
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
from json_to_recordset(%(images)s) as r({wire_columns}) where {same_row}

-- name: any_parked
-- Whether a change of one of these rows is parked.
select exists (
    select from json_to_recordset(%(rows)s) as r("table" text, id text)
    join ftstream.parked_change p on (p.table_name, p.entity_id) = (r."table", r.id)
    where p.flow = %(flow)s and p.state = 'parked' and p.operation is not null)
