-- How the stand-in for Supabase Realtime reads the log.

-- name: make_slot
-- From here on; it ends with the session.
select pg_create_logical_replication_slot(%(slot)s, 'pgoutput', true)

-- name: published
-- The tables whose changes Realtime tells.
select schemaname::text, tablename::text from pg_publication_tables where pubname = 'supabase_realtime'

-- name: poll
-- What was committed since the last time, as messages of pgoutput; they are told once.
select data from pg_logical_slot_get_binary_changes(
    %(slot)s, null, null, 'proto_version', '1', 'publication_names', 'supabase_realtime')
