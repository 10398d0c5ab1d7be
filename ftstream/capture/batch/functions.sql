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
        else 4
    end,
    last_synced_at;

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
