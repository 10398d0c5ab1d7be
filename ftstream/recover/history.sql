-- What a site has received of entities, and what it knows of their last writes.

-- name: entries
-- The log of these entities.
select l.entity_id, l.logged_at, l.operation::text, l.outcome::text, l.source_time,
       (l.change->>'version')::bigint as version, l.change->>'site' as site, l.change->>'author' as author,
       case when l.change->'row' <> 'null' then (l.change->'row')::text end as image,
       array(select jsonb_array_elements_text(case jsonb_typeof(l.change->'json_nulls') when 'array'
                                                   then l.change->'json_nulls' else '[]' end)) as json_nulls
from ftstream.sync_log l
where l.table_name = %(table)s and l.entity_id = any(%(ids)s::text[])
  -- A refusal is a write once it is taken, and else none.
  and (l.outcome = 'applied' or not coalesce(l.change ? 'refusal', false))
order by l.logged_at

-- name: changed_since
-- The entities that were written since a time, on this site or on the other. Partitions of the log from long
-- before are left out: nothing is received a day before it was written, whatever the clocks say.
select s.entity_id from ftstream.sync_log s
where s.table_name = %(table)s and s.source_time >= %(since)s and s.change is not null
  and s.logged_at >= %(since)s::timestamptz - interval '1 day'
union
select w.entity_id from ftstream.last_write w
where w.table_name = %(table)s and w.version >= (extract(epoch from %(since)s::timestamptz) * 1000000)::bigint

-- name: last_writes
-- Who wrote these entities last.
select w.entity_id, w.version, w.site::text from ftstream.last_write w
where w.table_name = %(table)s and w.entity_id = any(%(ids)s::text[])

-- name: reaches
-- How far back the log reaches: the first day that was not dropped yet.
select min(to_date(right(c.relname, 8), 'YYYYMMDD'))::timestamp at time zone 'UTC'
from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'ftstream.sync_log'::regclass and c.relname ~ '^sync_log_[0-9]{8}$'
