-- What a worker says of itself, besides what wakes it.

alter table ftstream.wake_ups add column halted jsonb not null default '{}';
comment on column ftstream.wake_ups.halted is 'flows that it does not carry any more until somebody fixes them, with the reasons';
comment on column ftstream.wake_ups.seen_at is 'when the worker said so last; it does every 10 s';
