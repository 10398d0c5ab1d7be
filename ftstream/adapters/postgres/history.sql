-- What a site has received of an entity, and writing an old state anew.

-- name: entries
-- The log of one entity, or of all that were written since a time.
select l.entity_id, l.logged_at, l.operation::text, l.outcome::text, l.source_time,
       (l.change->>'version')::bigint as version, l.change->>'site' as site, l.change->>'author' as author,
       case when l.change->'row' <> 'null' then (l.change->'row')::text end as image,
       array(select jsonb_array_elements_text(case jsonb_typeof(l.change->'json_nulls') when 'array'
                                                   then l.change->'json_nulls' else '[]' end)) as json_nulls
from ftstream.sync_log l
where l.table_name = %(table)s
  and case when %(id)s::text is not null then l.entity_id = %(id)s
      else l.entity_id in (select s.entity_id from ftstream.sync_log s
                           where s.table_name = %(table)s and s.source_time >= %(since)s and s.change is not null) end
order by l.logged_at

-- name: reaches
-- How far back the log of a table reaches.
select min(logged_at) from ftstream.sync_log where table_name = %(table)s

-- name: author
-- Whose edit it is, for the other site's log and this one's.
select set_config('ftstream.author', %(author)s, true)

-- name: restore
-- Writes a row as it was; columns that came later keep what they hold.
insert into {table} as t ({columns})
select {values} from jsonb_populate_record(null::{table}, %(image)s::jsonb) as r
on conflict ({key}) do update set {assignments}

-- name: remove
-- The row was not there.
delete from {table} t where t.{key}::text = %(id)s
