-- What wakes the publisher of each worker.

-- name: note
-- What wakes this worker; those that nobody has seen for a day are forgotten.
with forgotten as (
    delete from ftstream.wake_ups where worker <> %(worker)s and seen_at < now() - interval '1 day'
)
insert into ftstream.wake_ups (worker, way, since, reason, halted)
values (%(worker)s, %(way)s, %(since)s, %(reason)s, %(halted)s)
on conflict (worker) do update
set way = excluded.way, since = excluded.since, reason = excluded.reason, halted = excluded.halted,
    seen_at = clock_timestamp()

-- name: forget
-- A worker that ends is not shown any more.
delete from ftstream.wake_ups where worker = %(worker)s

-- name: seen
-- The workers that were seen lately.
select worker, way, since, reason, seen_at, halted from ftstream.wake_ups
where seen_at > now() - make_interval(secs => %(seconds)s) order by worker
