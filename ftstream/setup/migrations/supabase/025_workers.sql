-- Since when a worker runs: one that was started later has taken the place of one that is silent.

comment on column ftstream.wake_ups.seen_at is 'when the worker said so last; it does every 5 s';
comment on column ftstream.wake_ups.worker is 'host:pid; one that was killed stays for an hour';
alter table ftstream.wake_ups add column started_at timestamptz not null default clock_timestamp();
