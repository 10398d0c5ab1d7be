-- What applying needs: the schema, how far each partition is applied, and the log of changes.

create schema if not exists ftstream;
comment on schema ftstream is 'ftstream: synchronisation of External and Supabase through Kafka';

create type ftstream.operation as enum ('insert', 'update', 'delete', 'snapshot', 'truncate', 'repair');
create type ftstream.outcome as enum
    ('applied', 'merged', 'reread', 'superseded', 'recorded', 'parked', 'dead', 'dropped');

create table ftstream.applied_offset (
    topic           text        not null,
    kafka_partition integer     not null,
    next_offset     bigint      not null check (next_offset >= 0),
    source_position bigint,
    record_digest   bigint,
    updated_at      timestamptz not null default now(),
    primary key (topic, kafka_partition)
);
comment on table ftstream.applied_offset is
    'Per topic partition, the offset up to which this database holds the changes: the authority, whatever Kafka''s group has committed';

comment on column ftstream.applied_offset.record_digest is
    'of the last record applied: another one at its offset shows that the topic was made anew';

create table ftstream.sync_log (
    logged_at       timestamptz        not null default clock_timestamp(),
    operation       ftstream.operation,
    outcome         ftstream.outcome   not null,
    table_name      text               not null,
    entity_id       text               not null,
    topic           text               not null,
    kafka_partition integer            not null,
    kafka_offset    bigint             not null,
    source_position bigint,
    source_time     timestamptz,
    lag_ms          bigint
) partition by range (logged_at);
comment on table ftstream.sync_log is
    'One row per change received, and another for what became of a parked one; partitioned by day';
comment on column ftstream.sync_log.operation is 'null for a record that could not be read';
comment on column ftstream.sync_log.lag_ms is 'from the commit at the source to the write here, in milliseconds';
-- For "what happened to this row" and "what happened since".
create index sync_log_entity on ftstream.sync_log (entity_id);
create index sync_log_time on ftstream.sync_log using brin (logged_at);
create table ftstream.sync_log_default partition of ftstream.sync_log default;

create table ftstream.displaced (
    id           bigint generated always as identity primary key,
    displaced_at timestamptz not null default now(),
    table_name   text        not null,
    entity_id    text        not null,
    reason       text        not null,
    image        jsonb       not null
);
comment on table ftstream.displaced is
    'Rows taken out of the way of their owner''s: they held a unique value and their owner did not have them; kept as long as sync_log';
alter table ftstream.displaced enable row level security;

-- Raises the given SQLSTATE unless the condition holds: lets a statement of a pipeline, sent in one
-- network round trip, abort the transaction.
create function ftstream.require(condition boolean, failure text, explanation text) returns void
language plpgsql set search_path = '' as $$
begin
    if condition is not true then
        raise exception '%', explanation using errcode = failure;
    end if;
end $$;

-- Makes the log's partitions for the coming days and drops those past their time.
-- The partitions are made ahead, so that the default one stays empty; were it not, its rows would
-- forbid a partition of their day, which is said and left to the default.
create function ftstream.maintain_sync_log(keep_days integer) returns void
-- Days are of one zone for all callers, or their bounds would overlap.
language plpgsql security definer set search_path = '' set timezone = 'UTC' as $$
declare
    day  date;
    name text;
    keep integer := greatest(keep_days, 1);
begin
    -- Two workers start at once: the second waits, and finds the partitions made.
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('ftstream.maintain_sync_log'));
    for day in select d::date from pg_catalog.generate_series(current_date, current_date + 7, interval '1 day') d loop
        name := 'sync_log_' || pg_catalog.to_char(day, 'YYYYMMDD');
        continue when pg_catalog.to_regclass('ftstream.' || name) is not null;
        begin
            execute pg_catalog.format(
                'create table ftstream.%I partition of ftstream.sync_log for values from (%L) to (%L)',
                name, day::timestamptz, (day + 1)::timestamptz);
            execute pg_catalog.format('alter table ftstream.%I enable row level security', name);
        exception when check_violation then
            raise warning 'ftstream.sync_log_default holds rows of %', day;
        end;
    end loop;
    for name in
        select c.relname from pg_catalog.pg_inherits i
        join pg_catalog.pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'ftstream.sync_log'::pg_catalog.regclass
          and c.relname ~ '^sync_log_[0-9]{8}$'
          and pg_catalog.to_date(pg_catalog.right(c.relname, 8), 'YYYYMMDD') < current_date - keep
    loop
        execute pg_catalog.format('drop table ftstream.%I', name);
    end loop;
    delete from ftstream.displaced where displaced_at < pg_catalog.now() - pg_catalog.make_interval(days => keep);
end $$;
-- Whoever may apply needs them; `init` grants that role both.
revoke all on function ftstream.require(boolean, text, text) from public;
revoke all on function ftstream.maintain_sync_log(integer) from public;

alter table ftstream.applied_offset   enable row level security;
alter table ftstream.sync_log         enable row level security;
alter table ftstream.sync_log_default enable row level security;

select ftstream.maintain_sync_log(30);
