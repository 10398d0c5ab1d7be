-- Changes that were put aside, whole as they came: parked ones are tried again, dead ones wait for a person.

create type ftstream.parked_state as enum ('parked', 'dead');

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
    primary key (topic, kafka_partition, kafka_offset)
);
comment on table ftstream.parked_change is 'Changes that could not be applied yet; never deleted but by applying, or by a person';
comment on column ftstream.parked_change.attempts is
    'since every partition of the flow was past the change: until then what it lacks may still come';
create index parked_change_entity on ftstream.parked_change (table_name, entity_id);
create index parked_change_due on ftstream.parked_change (flow, next_attempt_at) where state = 'parked';
alter table ftstream.parked_change enable row level security;
