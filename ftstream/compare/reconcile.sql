-- What `reconcile` reads and writes on each site.

-- name: held
-- What this site holds of each of these entities: whether a row, of when it says it is, and the last write.
select i.id, t.{key} is not null, {written}, w.version, w.site::text, w.operation = 'delete',
       coalesce(w.reserved, 0)
from unnest(%(ids)s::text[]) as i(id)
left join {table} t on t.{key} = i.id::{key_type}
left join ftstream.last_write w on (w.table_name, w.entity_id) = ({name}, i.id)

-- name: written
-- When a row says it was written, in microseconds; one that says it will be written says nothing.
case when t.{column}::timestamptz between 'epoch' and now()
     then (extract(epoch from t.{column}::timestamptz) * 1000000)::bigint else 0 end

-- name: ledger
-- Every last write of a table, in an order that is the same on both sites.
select w.entity_id, w.version, w.site::text from ftstream.last_write w
where w.table_name = %(table)s order by w.entity_id collate "C"

-- name: unique_values
-- The values of one unique key that these rows hold.
select t.{key}::text, row({columns})::text from {table} t
where t.{key} = any(%(ids)s::text[]::{key_type}[]) and {present}

-- name: keep
-- Copies of rows that another site's will take the place of.
insert into ftstream.displaced (table_name, entity_id, reason, image)
select {name}, t.{key}::text, 'another row of this id stays', pg_catalog.to_jsonb(t) from {table} t
where t.{key} = any(%(ids)s::text[]::{key_type}[])

-- name: hand_over
-- Has the other site told of these rows as they are here.
select ftstream.hand_over_again(%(table)s::regclass, %(ids)s::text[], %(versions)s::bigint[], 'ftstream', %(only_unknown)s)

-- name: lock
-- Nobody refers to the row any more, or changes it, until the transaction ends.
select from {table} t where t.{key} = %(id)s::text::{key_type} for update

-- name: referring
-- What refers to the row.
select child, rows from ftstream.referring(%(table)s::regclass, %(id)s::text)

-- name: give_up
-- Deletes a row that is another one's double, as an edit that the other site is told of; kept in displaced.
with gone as (delete from {table} t where t.{key} = %(id)s::text::{key_type} returning t.*)
insert into ftstream.displaced (table_name, entity_id, reason, image)
select {name}, g.{key}::text, 'the same as ' || %(stays)s::text || ', as somebody has decided', pg_catalog.to_jsonb(g) from gone g

-- name: patience
-- Rows that a user holds are waited for, but not for long.
set local lock_timeout = '10s'
