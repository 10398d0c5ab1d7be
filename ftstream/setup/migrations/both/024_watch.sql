-- How far flows are, as workers say, and what the watcher has found and told: on both sites, since either may be away.

create table ftstream.flow_lag (
    flow         text        not null,
    worker       text        not null,
    changes      bigint      not null,
    p50_ms       bigint,
    p99_ms       bigint,
    heartbeat_at timestamptz,
    noted_at     timestamptz not null default clock_timestamp(),
    primary key (flow, worker)
);
comment on table ftstream.flow_lag is
    'How late the changes of each flow came here in the last minute: from the commit at the source to the write here';
comment on column ftstream.flow_lag.changes is 'that the worker has applied since it was started';
comment on column ftstream.flow_lag.heartbeat_at is
    'when the newest heartbeat was written at its source, which has come the whole way';
alter table ftstream.flow_lag enable row level security;

create table ftstream.alert (
    code            text        not null,
    subject         text        not null,
    opened_at       timestamptz not null,
    severity        text        not null check (severity in ('info', 'warning', 'error', 'critical')),
    what            text        not null,
    command         text        not null,
    flows           text[]      not null,
    seen_at         timestamptz not null,
    told_at         timestamptz,
    told_as         text,
    times           integer     not null default 0,
    acknowledged_by text        not null default '',
    closed_at       timestamptz,
    primary key (code, subject, opened_at)
);
comment on table ftstream.alert is 'What the watcher has found, and told; `ftstream explain CODE` says what it means';
comment on column ftstream.alert.closed_at is 'when it was over';
alter table ftstream.alert enable row level security;

create table ftstream.mute (
    code       text        not null,
    subject    text        not null,
    until      timestamptz not null,
    muted_by   text        not null,
    primary key (code, subject)
);
comment on table ftstream.mute is 'Alerts that are not told until a time; an empty code or subject means any';
alter table ftstream.mute enable row level security;

create table ftstream.watcher (
    one    boolean     primary key default true check (one),
    holder text        not null,
    until  timestamptz not null
);
comment on table ftstream.watcher is 'Which watcher is active: another one takes over once its time has passed';
alter table ftstream.watcher enable row level security;

create table ftstream.compared (
    one         boolean     primary key default true check (one),
    compared_at timestamptz not null,
    differing   jsonb       not null
);
comment on table ftstream.compared is 'When all tables of both sites were compared last, and how many rows of which differed';
alter table ftstream.compared enable row level security;

create table ftstream.receiver (
    name       text        primary key,
    success_at timestamptz,
    failure_at timestamptz,
    error      text        not null default ''
);
comment on table ftstream.receiver is 'When each receiver of alerts has last taken one, and when it has not';
alter table ftstream.receiver enable row level security;
