-- ftstream's tables at both sites. Their functions stand in the rooms they belong to (functions.sql).

create schema if not exists ftstream;
comment on schema ftstream is 'ftstream: synchronisation of External and Supabase through Kafka';

create type ftstream.operation as enum ('insert', 'update', 'delete', 'snapshot', 'truncate', 'repair');
create type ftstream.outcome as enum (
    'applied', 'merged', 'reread', 'superseded', 'recorded', 'parked', 'dead', 'dropped', 'duplicate', 'refused',
    'conflict_update_update', 'conflict_update_delete', 'conflict_delete_update', 'conflict_insert_insert',
    'run_done', 'run_failed');
create type ftstream.parked_state as enum ('parked', 'dead');
create type ftstream.site as enum ('external', 'supabase');

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
    kafka_partition integer,
    kafka_offset    bigint,
    source_position bigint,
    source_time     timestamptz,
    lag_ms          bigint,
    change          jsonb,
    details         jsonb
) partition by range (logged_at);
comment on table ftstream.sync_log is
    'One row per change received, and another for what became of a parked one; partitioned by day';
comment on column ftstream.sync_log.operation is 'null for a record that could not be read, and for a run';
comment on column ftstream.sync_log.kafka_offset is 'null where nothing came through Kafka';
comment on column ftstream.sync_log.lag_ms is 'from the commit at the source to the write here, in milliseconds';
comment on column ftstream.sync_log.change is 'the change as it was captured, of flows captured by outbox: what a conflict lost is here';
comment on column ftstream.sync_log.details is
    'of a run: rows found, published, deleted, and seconds; of an edit that a run undoes: the row as it was edited';
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

create table ftstream.parked_change (
    id               bigint                generated always as identity unique,
    flow             text                  not null,
    state            ftstream.parked_state not null,
    table_name       text                  not null,
    entity_id        text                  not null,
    operation        ftstream.operation,
    topic            text                  not null,
    kafka_partition  integer               not null,
    kafka_offset     bigint                not null,
    key              bytea,
    message          bytea                 not null,
    source_position  bigint,
    source_time      timestamptz,
    sqlstate         text                  not null,
    error            text                  not null,
    hint             text                  not null,
    parked_at        timestamptz           not null default clock_timestamp(),
    attempts         integer               not null default 0,
    first_attempt_at timestamptz,
    next_attempt_at  timestamptz           not null default clock_timestamp(),
    reread           boolean               not null default false,
    primary key (topic, kafka_partition, kafka_offset)
);
comment on table ftstream.parked_change is
    'Changes that could not be applied yet; none goes but by being applied, by a later change that tells all of its row, or by a person';
comment on column ftstream.parked_change.attempts is
    'since every partition of the flow was past the change: until then what it lacks may still come';
comment on column ftstream.parked_change.reread is
    'somebody has had it tried again after it was dead, or its table was emptied since';
create index parked_change_entity on ftstream.parked_change (table_name, entity_id);
create index parked_change_due on ftstream.parked_change (flow, next_attempt_at) where state = 'parked';

create table ftstream.last_write (
    table_name      text               not null,
    entity_id       text               not null,
    version         bigint             not null,
    site            ftstream.site      not null,
    operation       ftstream.operation not null,
    received        bigint             not null default 0,
    received_before bigint             not null default 0,
    transaction     xid8,
    relation        oid,
    born            boolean,
    deleted         boolean,
    author          text,
    reserved        bigint             not null default 0,
    primary key (table_name, entity_id)
);
comment on table ftstream.last_write is
    'The greatest version of each entity, and whose it is; a deleted entity stays as its tombstone';
comment on column ftstream.last_write.version is 'microseconds since 1970 of the writer''s clock, or one more than the version it overwrote';
comment on column ftstream.last_write.received is 'the greatest version that has come from the other site, whatever became of it';
comment on column ftstream.last_write.received_before is 'what `received` was until the last change came';
comment on column ftstream.last_write.transaction is
    'the transaction here that captured it last, of which the columns after this one tell';
comment on column ftstream.last_write.relation is 'the table that it wrote';
comment on column ftstream.last_write.born is 'whether the row is new in it';
comment on column ftstream.last_write.deleted is
    'whether it has deleted the row, or changed its key: only then is a row that is not there a delete';
comment on column ftstream.last_write.author is 'who wrote it';
comment on column ftstream.last_write.reserved is
    'the version in which the other site takes the row as it is here, if a write was refused to it: later writes here are greater';
create index last_write_tombstones on ftstream.last_write (version) where operation = 'delete';
create index last_write_refused on ftstream.last_write (table_name) where reserved > version;

create table ftstream.horizon (
    table_name text   primary key,
    version    bigint not null
);
comment on table ftstream.horizon is
    'The greatest version of a tombstone that was pruned: an older write of an unknown entity is refused';

create table ftstream.reconciled (
    table_name    text        primary key,
    reconciled_at timestamptz not null default now(),
    how           text        not null
);
comment on table ftstream.reconciled is
    'The tables whose every row here was captured, or handed over by `reconcile`: their flow may start';

create table ftstream.outbox (
    id          bigint generated always as identity primary key,
    table_name  text   not null,
    entity_id   text   not null,
    payload     text   not null,
    transaction bigint
);
comment on table ftstream.outbox is
    'Changes on their way to Kafka. On External the log is their only copy: each row is deleted as soon as it is written';
comment on column ftstream.outbox.transaction is
    'whose message it is, where the outbox is a queue: the last one of a row and transaction counts';
create index outbox_transaction on ftstream.outbox (transaction, entity_id) where transaction is not null;

alter table ftstream.applied_offset   enable row level security;
alter table ftstream.sync_log         enable row level security;
alter table ftstream.sync_log_default enable row level security;
alter table ftstream.displaced        enable row level security;
alter table ftstream.parked_change    enable row level security;
alter table ftstream.last_write       enable row level security;
alter table ftstream.horizon          enable row level security;
alter table ftstream.reconciled       enable row level security;
alter table ftstream.outbox           enable row level security;
