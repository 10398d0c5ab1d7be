-- What the watcher asks of a site every few seconds: one trip, no lock that a writer could meet.

-- name: patience
-- It waits for nobody.
select set_config('lock_timeout', '1s', true), set_config('statement_timeout', '4s', true),
       set_config('search_path', 'pg_catalog, pg_temp', true)

-- name: site
-- What every site has.
select json_build_object(
    'now', extract(epoch from clock_timestamp()),
    'read_only', pg_is_in_recovery() or current_setting('default_transaction_read_only') = 'on',
    'connections', (select count(*) from pg_stat_activity where datid is not null and usesysid is not null),
    'most_connections', current_setting('max_connections')::integer
                        - current_setting('superuser_reserved_connections')::integer,
    'slots', (select coalesce(json_agg(json_build_object(
                  'name', s.slot_name, 'active', s.active, 'status', coalesce(s.wal_status, ''),
                  'retained_bytes', coalesce(pg_wal_lsn_diff(
                      case when not pg_is_in_recovery() then pg_current_wal_lsn() end, s.restart_lsn), 0)::bigint,
                  'safe_bytes', s.safe_wal_size)), '[]')
              from pg_replication_slots s where s.slot_name = any(%(slots)s::text[])),
    'applied', (select coalesce(json_agg(json_build_array(a.topic, a.kafka_partition, a.next_offset)), '[]')
                from ftstream.applied_offset a),
    -- What a worker said of the last minute, long ago, is of no use; when a heartbeat came last it tells all the same.
    'lags', (select coalesce(json_agg(json_build_object(
                 'flow', l.flow, 'changes', l.changes,
                 'p50_ms', case when l.noted_at > now() - interval '1 minute' then l.p50_ms end,
                 'p99_ms', case when l.noted_at > now() - interval '1 minute' then l.p99_ms end,
                 'heartbeat_at', extract(epoch from l.heartbeat_at))), '[]')
             from ftstream.flow_lag l where l.noted_at > now() - interval '30 days'),
    'waiting', (select coalesce(json_agg(w), '[]') from (
                    select p.flow, p.state::text as state, count(*) as changes,
                           extract(epoch from now() - min(p.parked_at)) as oldest_seconds,
                           (array_agg(left(p.error, 300) order by p.parked_at))[1] as error
                    from ftstream.parked_change p group by 1, 2) w),
    'conflicts', (select coalesce(json_object_agg(c.name, c.changes), '{}') from (
                      select l.table_name as name, count(*) as changes from ftstream.sync_log l
                      where l.logged_at > now() - make_interval(secs => %(conflict_seconds)s) and l.outcome in (
                          'conflict_update_update', 'conflict_update_delete',
                          'conflict_delete_update', 'conflict_insert_insert') group by 1) c)
)

-- name: supabase
-- What Supabase has besides: workers, runs, and what waits to leave.
select json_build_object(
    'workers', (select coalesce(json_agg(json_build_object(
                    'name', w.worker, 'silent_seconds', extract(epoch from clock_timestamp() - w.seen_at),
                    'since_seconds', extract(epoch from clock_timestamp() - w.started_at),
                    'way', w.way, 'reason', w.reason, 'halted', w.halted)), '[]')
                from ftstream.wake_ups w),
    'runs', (select coalesce(json_agg(json_build_object(
                 'flow', s.source, 'entity_type', s.entity_type, 'status', s.status,
                 'late_seconds', extract(epoch from clock_timestamp() - s.last_synced_at),
                 'interval_seconds', extract(epoch from s.sync_interval),
                 'failures', s.consecutive_failures, 'error', coalesce(left(s.last_error, 300), ''))), '[]')
             from ftstream.sync_status s where s.source = any(%(batches)s::text[])),
    'outbox', (select count(*) from (select from ftstream.outbox limit 100001) o),
    'outbox_at', (select coalesce((o.payload::json ->> 'version')::numeric / 1000000,
                                  (o.payload::json -> 'source' ->> 'ts_ms')::numeric / 1000)
                  from ftstream.outbox o order by o.id limit 1)
)

-- name: size
-- What the databases of the server hold, as far as this role may see: more than a glance.
select sum(pg_database_size(d.oid))::bigint from pg_database d
where has_database_privilege(d.oid, 'connect') or pg_has_role('pg_read_all_stats', 'usage')

-- name: beat
-- Has the site's outbox carry heartbeats.
select ftstream.beat(%(tables)s::text[]::regclass[])
