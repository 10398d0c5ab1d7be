-- The state of each flow for dashboards (guidelines 4.2).

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
    primary key (source, entity_type)
);
comment on column ftstream.sync_status.last_heartbeat_at is
    'when the source''s newest heartbeat was written there: it travels the whole way through log, Connect and Kafka';
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
