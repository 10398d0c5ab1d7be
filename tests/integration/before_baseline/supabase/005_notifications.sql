-- What the person on duty should know (guidelines 6.2).

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
