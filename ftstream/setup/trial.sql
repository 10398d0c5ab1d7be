-- What a role is to be able to do with a table; all of it is taken back.

-- name: patience
-- A row that somebody works on is not waited for.
select set_config('lock_timeout', '500ms', true), set_config('statement_timeout', '10s', true)

-- name: become
-- As the role that ftstream's functions run as.
set local role {role}

-- name: as_ftstream
-- As the worker writes: guards and capture let it by.
select set_config('ftstream.applying', 'on', true)

-- name: read
-- A row, with whatever row level security asks of it.
select t.* from {table} as t limit 1

-- name: lock
-- A row, to change it.
select from {table} as t where t.{key} = (select o.{key} from {table} o limit 1) for update

-- name: delete
-- A row.
delete from {table} as t where t.{key} = (select o.{key} from {table} o limit 1)
