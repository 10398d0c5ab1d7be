-- How each worker learns that something was written here: woken by Realtime, or by looking ten times a second.

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
