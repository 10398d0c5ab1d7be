-- What the watcher keeps at each site.

-- name: lease
-- Takes the right to be the active watcher, or keeps it; no row while another has it.
insert into ftstream.watcher as w (holder, until)
values (%(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s))
on conflict (one) do update set holder = excluded.holder, until = excluded.until
where w.holder = excluded.holder or w.until < clock_timestamp()
returning holder

-- name: give_up
-- Leaves it to another.
delete from ftstream.watcher where holder = %(holder)s

-- name: open
-- The alerts that are not over, and those that were over lately.
select code, subject, opened_at, severity, what, command, flows, seen_at, told_at, told_as, times, acknowledged_by,
       closed_at
from ftstream.alert where closed_at is null or closed_at > now() - make_interval(secs => %(seconds)s)
order by opened_at

-- name: save
-- Keeps an alert as it is; what somebody has acknowledged meanwhile stays so, unless it got worse.
insert into ftstream.alert as a
    (code, subject, opened_at, severity, what, command, flows, seen_at, told_at, told_as, times, acknowledged_by, closed_at)
select r.code, r.subject, r.opened_at, r.severity, r.what, r.command, r.flows, r.seen_at, r.told_at, r.told_as, r.times,
       r.acknowledged_by, r.closed_at
from json_to_recordset(%(alerts)s) as r(
    code text, subject text, opened_at timestamptz, severity text, what text, command text, flows text[],
    seen_at timestamptz, told_at timestamptz, told_as text, times integer, acknowledged_by text, closed_at timestamptz)
on conflict (code, subject, opened_at) do update
set severity = excluded.severity, what = excluded.what, command = excluded.command, flows = excluded.flows,
    seen_at = excluded.seen_at, told_at = excluded.told_at, told_as = excluded.told_as, times = excluded.times,
    acknowledged_by = case when excluded.times > a.times and excluded.acknowledged_by = '' and a.told_as <> excluded.told_as
                           then '' else coalesce(nullif(excluded.acknowledged_by, ''), a.acknowledged_by) end,
    closed_at = excluded.closed_at
where a.seen_at <= excluded.seen_at  -- one that was frozen may know less

-- name: forget
-- Forgets what was over long ago.
delete from ftstream.alert where closed_at < now() - make_interval(days => %(days)s)

-- name: acknowledge
-- Somebody is at it: it is not told again unless it gets worse.
update ftstream.alert set acknowledged_by = %(who)s
where closed_at is null and code = %(code)s and (%(subject)s = '' or subject = %(subject)s)

-- name: mutes
-- What is not told.
select code, subject, until from ftstream.mute where until > now()

-- name: mute
-- Does not tell these until a time.
insert into ftstream.mute (code, subject, until, muted_by) values (%(code)s, %(subject)s, %(until)s, %(who)s)
on conflict (code, subject) do update set until = excluded.until, muted_by = excluded.muted_by

-- name: unmute
-- Tells these again.
delete from ftstream.mute where %(code)s = '' or (code, subject) = (%(code)s, %(subject)s)

-- name: compared
-- When both sites were compared last, and what differed.
select extract(epoch from now() - compared_at)::float8, differing from ftstream.compared

-- name: note_compared
-- They have been compared.
insert into ftstream.compared (compared_at, differing) values (now(), %(differing)s)
on conflict (one) do update set compared_at = excluded.compared_at, differing = excluded.differing

-- name: waiting
-- The rows of a flow that have changes which could not be applied.
select distinct p.table_name, p.entity_id from ftstream.parked_change p where p.flow = %(flow)s

-- name: note_receiver
-- Whether a receiver has taken what was sent.
insert into ftstream.receiver as r (name, success_at, failure_at, error)
values (%(name)s, case when %(error)s = '' then now() end, case when %(error)s <> '' then now() end, %(error)s)
on conflict (name) do update
set success_at = coalesce(excluded.success_at, r.success_at), failure_at = coalesce(excluded.failure_at, r.failure_at),
    error = excluded.error

-- name: note_activity
-- What the watcher has done by itself (guidelines 6.3).
insert into ftstream.activity_log (action, entity_type, details) values (%(action)s, %(entity)s, %(details)s)

-- name: restarts
-- How often connectors were restarted by the watcher, and when last; times in seconds since 1970.
select distinct on (a.entity_type) a.entity_type, (a.details ->> 'restart')::integer,
       extract(epoch from a.created_at)::float8
from ftstream.activity_log a
where a.action = 'connector_restart'
order by a.entity_type, a.created_at desc

-- name: health
-- Has people told of what the dashboard shows (guidelines 6.2), and failed runs tried again (6.3).
select ftstream.check_sync_health_and_notify(%(language)s), ftstream.retry_failed_syncs()

-- name: daily
-- What the daily checklist asks (guidelines 8.2).
select array(select source || '.' || entity_type || ' ' || health_status from ftstream.v_sync_dashboard
             where health_status <> 'HEALTHY'),
       array(select source || '.' || entity_type from ftstream.sync_status
             where source = any(%(batches)s::text[]) and (status = 'failed' or last_synced_at is null
                   or last_synced_at < now() - 2 * sync_interval))

-- name: errors
-- How many changes did not fit in a day.
select count(*) from ftstream.sync_log
where logged_at > now() - interval '1 day' and outcome in ('parked', 'dead', 'run_failed')
