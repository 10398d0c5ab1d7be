-- Reading one table for a comparison, alike on both sites. The digest of a row is taken over
-- ROW(columns by name)::text: all that a value is shows in its text, NULL and '' included. Its bytes
-- are hashed (collate "C"): another collation may take different texts for equal.

-- name: snapshot
-- Everything that follows in the transaction sees the same moment, and changes nothing.
set transaction isolation level repeatable read, read only

-- name: stay
-- The snapshot lasts while what was read is waited for elsewhere, but not for a process that is frozen.
select set_config('idle_in_transaction_session_timeout', '15min', true)

-- name: bounds
-- Every so many-th key, in order.
select s.key::text
from (select t.{key} as key, row_number() over (order by t.{key}) as n from {table} t) s
where s.n %% %(step)s = 0

-- name: merge_bounds
-- The keys of both sites as one list, in the order that the ranges need.
select b.key::text from (select distinct unnest(%(bounds)s::text[]::{key_type}[]) as key) b order by b.key

-- name: range_digests
-- How many rows lie in each range between two bounds, and one number over all of them.
select width_bucket(t.{key}, %(bounds)s::text[]::{key_type}[]) as range, count(*),
       bit_xor(hashtextextended(row({columns})::text collate "C", 0))
from {table} t group by 1

-- name: range_rows
-- One number a row, of one range; NULL stands for no bound.
select t.{key}::text, hashtextextended(row({columns})::text collate "C", 0) from {table} t
where (%(lower)s::text is null or t.{key} >= %(lower)s::text::{key_type})
  and (%(upper)s::text is null or t.{key} < %(upper)s::text::{key_type})

-- name: rows
-- One number a row, of these rows.
select t.{key}::text, hashtextextended(row({columns})::text collate "C", 0) from {table} t
where t.{key} = any(%(ids)s::text[]::{key_type}[])

-- name: column_digests
-- One number a column, of these rows.
select t.{key}::text, array[{column_digests}] from {table} t
where t.{key} = any(%(ids)s::text[]::{key_type}[])
