-- Whether capture is as `init` promises, as last seen, and when it was not: what was written meanwhile may be missing
-- on the other site until the tables have been compared.

create table ftstream.setup_seen (
    table_name  text        primary key,
    fingerprint text        not null,
    seen_at     timestamptz not null
);
comment on table ftstream.setup_seen is
    'When the capture of a table was last seen to be as it should be, and its triggers and publications of then';
comment on column ftstream.setup_seen.fingerprint is
    'Which relation, triggers and publications (oid and xmin): another one says that something was changed since, and perhaps changed back';
alter table ftstream.setup_seen enable row level security;

create table ftstream.gap (
    id         bigint      generated always as identity primary key,
    flow       text        not null,
    table_name text        not null,
    reason     text        not null,
    since      timestamptz not null,
    until      timestamptz,
    last       xid8,
    found_at   timestamptz not null default now()
);
comment on table ftstream.gap is
    'When the capture of a table here was broken: it goes once both sites have been compared';
comment on column ftstream.gap.since is 'when it was last seen to be well';
comment on column ftstream.gap.until is 'when it was well again; null: it is not yet';
comment on column ftstream.gap.last is
    'the transaction that noted its end: older ones may still commit what was not captured';
create unique index gap_open on ftstream.gap (table_name) where until is null;
alter table ftstream.gap enable row level security;
