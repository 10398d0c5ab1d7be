-- Which write of an entity stays (rule.py), and what a site is told of its writes that cannot.

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

-- name: clock
-- What time it is here, as versions have it.
select (extract(epoch from clock_timestamp()) * 1000000)::bigint

-- name: in_the_way
-- What is known of these rows, which are in a change's way; held until the transaction ends.
select w.table_name, w.entity_id, w.version, w.site::text, w.reserved
from json_to_recordset(%(rows)s) as r("table" text, id text)
join ftstream.last_write w on (w.table_name, w.entity_id) = (r."table", r.id)
order by w.table_name, w.entity_id for update of w

-- name: refusals
-- How often a row was refused lately.
select count(*) from ftstream.sync_log
where entity_id = %(id)s and table_name = %(table)s and outcome = 'refused'
  and logged_at > now() - interval '10 minutes'

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
