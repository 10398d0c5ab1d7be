-- Writing rows as they were, as edits like any other: production's triggers run, and capture hands them on.

-- name: live
-- Rows as they are, with their last writes, and what they are to be, each column as text.
select m.id, t.{key} is not null as present, w.version, w.site::text,
       array[{now}]::text[] as now, array[{then}]::text[] as then
from json_to_recordset(%(wanted)s) as m(id text, image jsonb, json_nulls text[])
left join {table} t on t.{key} = m.id::{key_type}
left join ftstream.last_write w on (w.table_name, w.entity_id) = (%(table)s, m.id)
cross join lateral jsonb_populate_record(null::{table}, m.image) as r

-- name: triggers
-- Whether the production's triggers run.
select current_setting('session_replication_role')

-- name: begin
-- An edit of this author. It gives way before PostgreSQL would end a user's transaction to part the two
-- (deadlock_timeout, 1 s); and behind a pooler, another client may have left its settings.
select set_config('ftstream.author', %(author)s, true), set_config('ftstream.applying', 'off', true),
       set_config('lock_timeout', '500ms', true), set_config('statement_timeout', '60s', true)

-- name: require_exact
-- The other site's values may be more than the columns here hold.
select ftstream.require_exact(%(table)s::regclass, %(image)s::jsonb)

-- name: lock_row
-- Row first, then last_write, as a user's own write takes its locks.
select from {table} as t where t.{key} = %(id)s::{key_type} for update

-- name: lock_last_write
-- Who wrote it last; nobody else writes it until the transaction ends.
select w.version, w.site::text from ftstream.last_write w
where (w.table_name, w.entity_id) = (%(table)s, %(id)s) for update

-- name: update
-- Gives a row the values it had; columns that came later keep what they hold.
update {table} as t set {assignments}
from jsonb_populate_record(null::{table}, %(image)s::jsonb) as r
where t.{key} = %(id)s::{key_type}

-- name: insert
-- Brings a row back.
insert into {table} ({columns}) overriding system value
select {values} from jsonb_populate_record(null::{table}, %(image)s::jsonb) as r

-- name: delete
-- Removes a row that was not there.
delete from {table} as t where t.{key} = %(id)s::{key_type}
