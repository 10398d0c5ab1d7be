-- name: too_large
-- The largest rows whose values, as JSON strings, are over a size; one stored in less than a 256th of it cannot be.
with candidates as materialized (
    select t.{key}::text as id, {written} as bytes from {table} t where {stored} > %(bytes)s / 256
)
select id, bytes from candidates where bytes > %(bytes)s order by bytes desc limit %(limit)s
