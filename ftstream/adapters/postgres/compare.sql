-- name: session
-- The same text for the same value on both sites.
select set_config('datestyle', 'ISO, YMD', true), set_config('intervalstyle', 'postgres', true),
       set_config('timezone', 'UTC', true), set_config('extra_float_digits', '1', true),
       set_config('bytea_output', 'hex', true)

-- name: digest
-- How many rows there are, and one number over all of them.
select count(*), coalesce(sum(hashtextextended(row({columns})::text, 0)::numeric), 0) from {table}

-- name: row_digests
-- One number a row, by id.
select {key}::text, hashtextextended(row({columns})::text, 0) from {table}
