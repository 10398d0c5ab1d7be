-- Pruning tombstones, which both sites must agree on.

-- name: old
-- The next deletes of a table from before a version; none of an entity that waits to be applied, or of which
-- the other site is to answer a refusal.
select w.entity_id, w.version, w.site::text from ftstream.last_write w
where w.table_name = %(name)s and w.operation = 'delete' and w.version < %(before)s and w.reserved <= w.version
  and (w.version, w.entity_id) > (%(after_version)s, %(after_id)s)
  and not exists (select from ftstream.parked_change p where (p.table_name, p.entity_id) = (w.table_name, w.entity_id))
order by w.version, w.entity_id limit %(most)s

-- name: known
-- What this site knows of these entities: their last write, whether there is a row, and whether a change waits.
select i.id, w.version, w.site::text, w.operation = 'delete',
       exists (select from {table} t where t.{key}::text = i.id),
       exists (select from ftstream.parked_change p where (p.table_name, p.entity_id) = (%(name)s, i.id))
from unnest(%(ids)s::text[]) as i(id)
left join ftstream.last_write w on (w.table_name, w.entity_id) = (%(name)s, i.id)

-- name: raise_horizon
-- From now on an older write of an unknown entity is refused.
insert into ftstream.horizon as h (table_name, version) values (%(name)s, %(version)s)
on conflict (table_name) do update set version = greatest(h.version, excluded.version)

-- name: prune
-- Forgets these, unless somebody has written one meanwhile.
delete from ftstream.last_write w
using json_to_recordset(%(tombstones)s) as r(id text, version bigint, site ftstream.site)
where (w.table_name, w.entity_id, w.version, w.site) = (%(name)s, r.id, r.version, r.site) and w.operation = 'delete'
  and w.reserved <= w.version

-- name: horizon
-- Versions up to this one are refused, of entities that nobody knows.
select coalesce(max(version), 0) from ftstream.horizon where table_name = %(name)s
