-- When flows captured by batch run, and how it went (guidelines 4.2, 6.1 and 6.3).

-- Tables are called without their flow's prefix.
update ftstream.sync_status
set entity_type = substr(entity_type, length(source) + 2) where starts_with(entity_type, source || '_');

alter table ftstream.sync_status add column last_error text;
comment on column ftstream.sync_status.last_error is 'why the last run failed; null once one is done';
comment on column ftstream.sync_status.next_sync_at is 'when a flow captured by batch runs next: null, or past, is at once';

create table ftstream.batch_source (
    flow              text        not null,
    table_name        text        not null,
    system_identifier text        not null,
    timeline          integer     not null,
    source_seen       pg_snapshot not null,
    target_seen       pg_snapshot not null,
    primary key (flow, table_name)
);
comment on table ftstream.batch_source is
    'Which External the last run of a table read, and what it saw of both sites: another one may lack rows; and what was written here since, and not by ftstream, was edited';
alter table ftstream.batch_source enable row level security;

create table ftstream.activity_log (
    id          bigint      generated always as identity primary key,
    action      text        not null,
    entity_type text        not null,
    details     jsonb       not null default '{}',
    created_at  timestamptz not null default clock_timestamp()
);
comment on table ftstream.activity_log is 'What people and schedulers have ftstream do (guidelines 6.3)';
alter table ftstream.activity_log enable row level security;

-- As in the guidelines (6.1), thresholds and all.
create view ftstream.v_sync_dashboard with (security_invoker = true) as
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
create function ftstream.retry_failed_syncs() returns integer
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
