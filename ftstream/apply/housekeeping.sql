-- What is written beside the changes: for people, and to keep the log in bounds.

-- name: patience
-- Whoever reads the log may go on: this is tried again later.
select set_config('lock_timeout', '500ms', true), set_config('statement_timeout', '60s', true)

-- name: maintain
-- Makes the coming days' partitions of sync_log and drops those past their time.
select ftstream.maintain_sync_log(%(days)s)

-- name: prune_notifications
-- Forgets what was told last so long ago.
delete from ftstream.notifications where last_at < now() - make_interval(days => %(days)s)

-- name: prune_activity
-- Forgets what people and schedulers had done so long ago.
delete from ftstream.activity_log where created_at < now() - make_interval(days => %(days)s)

-- name: record_status
-- Adds what was applied since the last time to sync_status.
update ftstream.sync_status s
set status = r.status, updated_at = now(),
    consecutive_failures = case when r.failed > 0 then s.consecutive_failures + 1
                                when r.records > 0 then 0 else s.consecutive_failures end,
    records_synced = s.records_synced + r.records, records_failed = s.records_failed + r.failed,
    -- A heartbeat has come the same way: what was written before it is here.
    last_synced_at = case when r.records > 0 or r.heartbeat is not null then now() else s.last_synced_at end,
    last_heartbeat_at = coalesce(to_timestamp(r.heartbeat), s.last_heartbeat_at)
from json_to_recordset(%(rows)s)
    as r(source text, entity_type text, status text, records bigint, failed bigint, heartbeat double precision)
where (s.source, s.entity_type) = (r.source, r.entity_type)

-- name: note_lag
-- How late a flow's changes have come here, as this worker has seen; workers that are gone are forgotten.
with gone as (delete from ftstream.flow_lag where noted_at < now() - interval '1 day')
insert into ftstream.flow_lag (flow, worker, changes, p50_ms, p99_ms, heartbeat_at)
values (%(flow)s, %(worker)s, %(changes)s, %(p50)s, %(p99)s, to_timestamp(%(heartbeat)s::double precision))
on conflict (flow, worker) do update
set changes = excluded.changes, p50_ms = excluded.p50_ms, p99_ms = excluded.p99_ms,
    heartbeat_at = coalesce(excluded.heartbeat_at, flow_lag.heartbeat_at), noted_at = clock_timestamp()

-- name: notify
-- Tells something, or that it happened again since somebody last read.
insert into ftstream.notifications (type, severity, title, message, metadata)
values (%(type)s, %(severity)s, %(title)s, %(message)s, %(metadata)s)
on conflict (type, title) where read_at is null do update
set times = notifications.times + 1, last_at = clock_timestamp(), severity = excluded.severity,
    message = excluded.message, metadata = excluded.metadata

-- name: notifications
-- What was told, the newest last.
select id, type, severity, title, message, metadata, times, created_at, last_at, read_at
from ftstream.notifications where %(all)s or read_at is null order by last_at

-- name: mark_read
-- Notes that somebody has read these, or all.
update ftstream.notifications set read_at = now()
where read_at is null and (%(ids)s::bigint[] is null or id = any(%(ids)s::bigint[]))
returning id
