-- What people and schedulers see and do of runs, as in the guidelines (6.1 and 6.3).

-- As in the guidelines (6.1), thresholds and all.
create or replace view ftstream.v_sync_dashboard with (security_invoker = true) as
select
    source,
    entity_type,
    status,
    last_synced_at,
    records_synced,
    records_failed,
    consecutive_failures,
    sync_interval,
    next_sync_at,
    case
        when consecutive_failures > 5 then 'CRITICAL'
        when consecutive_failures > 2 then 'WARNING'
        when last_synced_at is null then 'PENDING'
        when last_synced_at < now() - sync_interval * 2 then 'STALE'
        when status = 'failed' then 'ERROR'
        else 'HEALTHY'
    end as health_status,
    extract(epoch from (now() - last_synced_at)) as lag_seconds
from ftstream.sync_status
order by
    case
        when consecutive_failures > 5 then 1
        when consecutive_failures > 2 then 2
        when status = 'failed' then 3
        -- The original passes over a table that is late, or was never synced.
        when last_synced_at is null or last_synced_at < now() - sync_interval * 2 then 4
        else 5
    end,
    last_synced_at nulls first;

-- Has failed runs tried again at once (guidelines 6.3), those included that have never been done; returns
-- how many. For pg_cron, or a person; the scheduler tries again by itself, too.
create or replace function ftstream.retry_failed_syncs() returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    retried integer;
begin
    update ftstream.sync_status
    set status = 'pending', next_sync_at = now()
    where status = 'failed' and consecutive_failures < 5
      and coalesce(last_synced_at < now() - interval '5 minutes', true);
    get diagnostics retried = row_count;
    if retried > 0 then
        insert into ftstream.activity_log (action, entity_type, details)
        values ('sync_retry', 'sync_status', jsonb_build_object('retry_count', retried));
    end if;
    return retried;
end $$;
revoke all on function ftstream.retry_failed_syncs() from public;

-- Has people told of what the dashboard shows as CRITICAL or ERROR (guidelines 6.2): for pg_cron every five minutes, and
-- called by `ftstream watch`. In Korean ('ko') or English ('en'). How many there are.
create or replace function ftstream.check_sync_health_and_notify(language text default 'ko') returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    unhealthy record;
    found     integer := 0;
begin
    for unhealthy in
        select * from ftstream.v_sync_dashboard d where d.health_status in ('CRITICAL', 'ERROR')
    loop
        insert into ftstream.notifications (type, severity, title, message, metadata, target_user)
        values (
            'sync_failure', case unhealthy.health_status when 'CRITICAL' then 'critical' else 'error' end,
            case language when 'ko' then '동기화 실패: ' else 'sync failure: ' end
                || unhealthy.source || '.' || unhealthy.entity_type,
            format(case language when 'ko' then '연속 실패 %s회. 마지막 동기화: %s'
                                 else '%s failures in a row. Last sync: %s' end,
                   unhealthy.consecutive_failures, coalesce(unhealthy.last_synced_at::text, '-')),
            jsonb_build_object('source', unhealthy.source, 'entity_type', unhealthy.entity_type,
                               'lag_seconds', unhealthy.lag_seconds),
            'admin')
        on conflict (type, title) where read_at is null do update
        set times = notifications.times + 1, last_at = clock_timestamp(), severity = excluded.severity,
            message = excluded.message, metadata = excluded.metadata;
        found := found + 1;
    end loop;
    return found;
end $$;
revoke all on function ftstream.check_sync_health_and_notify(text) from public;
