-- name: current_position
-- Where the log of changes ends: everything committed before is below it.
select pg_current_wal_insert_lsn()::text

-- name: emit_heartbeat
-- A message in the log, so that there is something to confirm when nobody writes.
select pg_logical_emit_message(true, %(prefix)s, 'wait')

-- name: slot
-- Whether the slot has confirmed a position: Connect has it all acknowledged by Kafka.
select confirmed_flush_lsn >= %(position)s::pg_lsn as confirmed, active,
       pg_wal_lsn_diff(%(position)s::pg_lsn, confirmed_flush_lsn)::bigint as behind
from pg_replication_slots where slot_name = %(slot)s

-- name: applied
-- The applied offsets of these topics.
select topic, kafka_partition, next_offset from ftstream.applied_offset where topic = any(%(topics)s)

-- name: lag
-- Changes of these topics logged since a time, and their lag in milliseconds.
select count(*), coalesce(percentile_disc(0.5) within group (order by lag_ms), 0),
       coalesce(percentile_disc(0.99) within group (order by lag_ms), 0)
from ftstream.sync_log
where topic = any(%(topics)s) and logged_at > now() - make_interval(secs => %(seconds)s)

-- name: conflicts
-- Changes of these topics that have met one of the other site, and lost.
select count(*) from ftstream.sync_log where topic = any(%(topics)s) and outcome::text like 'conflict%%'

-- name: parked
-- Changes that are tried again; dead ones are not.
select count(*) from ftstream.parked_change where flow = %(flow)s and state = 'parked'

-- name: parked_and_dead
-- Changes here that could not be applied, by flow: those tried again, and those that wait for a person.
select flow, count(*) filter (where state = 'parked'), count(*) filter (where state = 'dead')
from ftstream.parked_change group by flow

-- name: newest_in_outbox
-- The newest change of these tables that is not in Kafka.
select coalesce(max(id), 0) from ftstream.outbox where table_name = any(%(tables)s::text[])

-- name: left_in_outbox
-- How many changes of these tables, up to that one, are not in Kafka yet.
select count(*) from ftstream.outbox where table_name = any(%(tables)s::text[]) and id <= %(last)s

-- name: refused
-- Rows of which the other site was told to take them as they are here, and has not yet.
select count(*) from ftstream.last_write where table_name = any(%(tables)s::text[]) and reserved > version
