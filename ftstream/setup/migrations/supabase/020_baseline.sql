-- ftstream's tables on Supabase, for people and dashboards.

create table ftstream.sync_status (
    source               text        not null,
    entity_type          text        not null,
    status               text        not null default 'pending'
                         check (status in ('pending', 'syncing', 'synced', 'failed')),
    last_synced_at       timestamptz,
    last_heartbeat_at    timestamptz,
    records_synced       bigint      not null default 0,
    records_failed       bigint      not null default 0,
    consecutive_failures integer     not null default 0,
    sync_interval        interval    not null default interval '1 minute',
    next_sync_at         timestamptz,
    updated_at           timestamptz not null default now(),
    last_error           text,
    primary key (source, entity_type)
);
comment on column ftstream.sync_status.last_heartbeat_at is
    'when the source''s newest heartbeat was written there: it travels the whole way through log, Connect and Kafka';
comment on column ftstream.sync_status.last_error is 'why the last run failed; null once one is done';
comment on column ftstream.sync_status.next_sync_at is 'when a flow captured by batch runs next: null, or past, is at once';

create table ftstream.notifications (
    id            bigint      generated always as identity primary key,
    type          text        not null,
    severity      text        not null check (severity in ('info', 'warning', 'error', 'critical')),
    title         text        not null,
    message       text        not null,
    metadata      jsonb       not null default '{}',
    target_user   text        not null default 'admin',
    times         integer     not null default 1,
    created_at    timestamptz not null default clock_timestamp(),
    last_at       timestamptz not null default clock_timestamp(),
    read_at       timestamptz
);
comment on column ftstream.notifications.times is 'how often it was told, until somebody read it';
create unique index notifications_unread on ftstream.notifications (type, title) where read_at is null;
alter table ftstream.notifications enable row level security;

create table ftstream.wake_ups (
    worker  text        primary key,
    way     text        not null check (way in ('realtime', 'polling')),
    since   timestamptz not null,
    reason  text        not null default '',
    seen_at timestamptz not null default clock_timestamp()
);
comment on table ftstream.wake_ups is
    'What wakes the publisher of each worker: nothing depends on it but how soon a change leaves';
comment on column ftstream.wake_ups.worker is 'host:pid; one that was killed stays for a day';
comment on column ftstream.wake_ups.since is 'by the worker''s clock';
comment on column ftstream.wake_ups.reason is 'why it is polling';
comment on column ftstream.wake_ups.seen_at is 'when the worker said so last; it does every 30 s';
alter table ftstream.wake_ups enable row level security;

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

alter table ftstream.sync_status enable row level security;

-- In `public` Supabase grants such roles rights by default; here nobody has any until it is granted.
do $$
declare
    name text;
begin
    for name in select rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated') loop
        execute pg_catalog.format('revoke all on schema ftstream from %I', name);
        execute pg_catalog.format('revoke all on all tables in schema ftstream from %I', name);
        execute pg_catalog.format('revoke all on all functions in schema ftstream from %I', name);
    end loop;
end $$;
