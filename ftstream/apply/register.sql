-- Applies changes that both sites may make: the greatest write of each entity stays (last_write/rule.py has
-- the same rule for readers). They are statements of their own, one after the other, because a statement
-- does not see rows that were committed while it waited: with all in one, a delete missed a row that was
-- just being inserted, and the sites stayed different.

-- name: lock_rows
-- Rows first, in the order of their keys, as a user's own write takes its locks: row, then last_write.
select from {table} as t where t.{key} = any(%(ids)s::text[]::{key_type}[]) order by t.{key} for update

-- name: advance_last_write
-- Notes the greatest of the write that came and the one that there was, and that it came. Not of an entity
-- that nobody knows, if the write is older than the tombstones that are gone. One that was refused, and comes
-- again, is too late.
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
    from (values (w.version, w.site, w.operation, true),
                 (excluded.version, excluded.site, excluded.operation, excluded.version >= w.reserved))
             as x(version, site, operation, counts)
    where x.counts order by x.version desc, x.site desc limit 1)

-- name: take_over
-- Has this site take rows as the other one has them, in place of its own writes that were refused there:
-- unless it has written them since. Which it has taken.
update ftstream.last_write w
set (version, site, operation, received, received_before)
  = (r.version, r.site, r.op, greatest(w.received, r.version), w.received)
from json_to_recordset(%(refusals)s)
         as r("table" text, id text, op ftstream.operation, version bigint, site ftstream.site,
              over_version bigint, over_site ftstream.site)
where (w.table_name, w.entity_id, w.version, w.site) = (r."table", r.id, r.over_version, r.over_site)
  and r.version > w.reserved
returning w.table_name, w.entity_id

-- name: require_lost
-- Aborts unless each of these writes has come before, and lost to a greater one: then it has no effect, and
-- nothing is locked for it. Neither is ever undone, so a plain look is enough.
select ftstream.require(count(*) = %(count)s, 'FT008', 'a write that seemed to have lost has not')
from json_to_recordset(%(lost)s) as r("table" text, id text, version bigint, site ftstream.site)
join ftstream.last_write w on (w.table_name, w.entity_id) = (r."table", r.id)
where r.version <= w.received and (w.version, w.site) > (r.version, r.site)

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

-- name: require_parents
-- All that the rows written refer to is here.
select ftstream.require_parents(%(table)s::regclass, array(
    select m.id from json_to_recordset(%(messages)s) as m(id text, version bigint, site ftstream.site)
    join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = (%(name)s, m.id, m.version, m.site)))

-- name: release_children
-- What refers to the rows that are to be deleted lets go of them, as its foreign key says.
with won as (
    select m.id, m.gone
    from json_to_recordset(%(messages)s) as m(id text, version bigint, site ftstream.site, gone boolean)
    join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = (%(name)s, m.id, m.version, m.site))
select ftstream.release_children(
    %(table)s::regclass, array(select id from won where gone), %(carried)s::text[]::regclass[],
    array(select id from won where not gone))

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

-- name: refusals
-- How often a row was refused lately.
select count(*) from ftstream.sync_log
where entity_id = %(id)s and table_name = %(table)s and outcome = 'refused'
  and logged_at > now() - interval '10 minutes'

-- name: in_the_way
-- What is known of these rows, which are in a change's way; held until the transaction ends.
select w.table_name, w.entity_id, w.version, w.site::text, w.reserved
from json_to_recordset(%(rows)s) as r("table" text, id text)
join ftstream.last_write w on (w.table_name, w.entity_id) = (r."table", r.id)
order by w.table_name, w.entity_id for update of w

-- name: guarded
-- Whether all of these tables refuse edits.
select bool_and(exists (
    select from pg_trigger t
    where t.tgrelid = to_regclass(n.name) and t.tgfoid = to_regprocedure('ftstream.refuse_edit()') and t.tgenabled = 'A'))
from unnest(%(tables)s::text[]) as n(name)

-- name: any_parked
-- Whether a change of one of these rows is parked.
select exists (
    select from json_to_recordset(%(rows)s) as r("table" text, id text)
    join ftstream.parked_change p on (p.table_name, p.entity_id) = (r."table", r.id)
    where p.flow = %(flow)s and p.state = 'parked' and p.operation is not null)

-- name: would_release
-- Fails if something refers to these rows that does not let go of them.
select ftstream.release_children(%(table)s::regclass, %(ids)s::text[], '{}'::regclass[])

-- name: missing_parents
-- What a change's row refers to that is not here.
select ftstream.missing_parents(%(target)s::regclass, %(image)s::jsonb)::text

-- name: refuse
-- Tells the other site to take this row as it is here, or with some columns null, in place of its own write.
select ftstream.refuse(
    %(target)s::regclass, %(id)s, %(over_version)s, %(over_site)s, %(version)s, %(because)s,
    case when cardinality(%(nulls)s::text[]) > 0 then m.message -> 'row' || (
        select jsonb_object_agg(name, null) from unnest(%(nulls)s::text[]) as n(name)) end,
    array(select jsonb_array_elements_text(case jsonb_typeof(m.message -> 'json_nulls') when 'array'
                                                then m.message -> 'json_nulls' else '[]' end)))
from (select %(message)s::jsonb as message) m

-- name: tell_again
-- Tells the other site once more how these rows are here, where this site wrote them last.
select ftstream.tell_again(%(target)s::regclass, %(ids)s::text[], %(yields)s)

-- name: log_refusal
-- The write that was refused, whole, or one that came before it.
insert into ftstream.sync_log
    (operation, outcome, table_name, entity_id, topic, kafka_partition, kafka_offset, source_time, lag_ms, change)
select %(op)s, %(outcome)s::ftstream.outcome, %(table)s, %(id)s, %(topic)s, %(partition)s, %(offset)s, s.at,
       (extract(epoch from clock_timestamp() - s.at) * 1000)::bigint, %(change)s::jsonb
from (select to_timestamp(0) + (%(version)s::bigint / 1000000) * interval '1 second'
           + (%(version)s::bigint %% 1000000) * interval '1 microsecond' as at) s
