-- Changes that are parked, and what becomes of them.

-- name: park
-- Keeps one record that is not applied now; in place of one that lay at its offset before the topic was
-- recreated, or was read again.
insert into ftstream.parked_change
    (flow, state, table_name, entity_id, operation, topic, kafka_partition, kafka_offset, key, message,
     source_position, source_time, sqlstate, error, hint)
values (%(flow)s, %(state)s, %(table)s, %(id)s, %(op)s, %(topic)s, %(partition)s, %(offset)s,
        %(key)b, %(message)b, %(position)s,
        to_timestamp(0) + %(time)s::bigint * interval '1 microsecond', %(sqlstate)s, %(error)s, %(hint)s)
on conflict (topic, kafka_partition, kafka_offset) do update
set (flow, state, table_name, entity_id, operation, key, message, source_position, source_time, sqlstate,
     error, hint, parked_at, attempts, first_attempt_at, next_attempt_at)
  = (excluded.flow, excluded.state, excluded.table_name, excluded.entity_id, excluded.operation,
     excluded.key, excluded.message, excluded.source_position, excluded.source_time, excluded.sqlstate,
     excluded.error, excluded.hint, excluded.parked_at, 0, null, excluded.next_attempt_at)

-- name: reread
-- A table was emptied: what waits of it must not bring a row back.
update ftstream.parked_change set reread = true where table_name = any(%(tables)s::text[])

-- name: revive
-- What follows a dead change of its row is tried together with it.
update ftstream.parked_change p set state = 'parked', next_attempt_at = now(), first_attempt_at = null
from json_to_recordset(%(entities)s) as r("table" text, id text)
where (p.table_name, p.entity_id) = (r."table", r.id) and p.state = 'dead' and p.operation is not null

-- name: give_up
-- Takes parked changes out for good, and logs each with what became of it.
with gone as (delete from ftstream.parked_change p where {which} returning p.*)
insert into ftstream.sync_log
    (operation, outcome, table_name, entity_id, topic, kafka_partition, kafka_offset, source_position,
     source_time, lag_ms)
select operation, {outcome}, table_name, entity_id, topic, kafka_partition, kafka_offset, source_position,
       source_time, (extract(epoch from clock_timestamp() - source_time) * 1000)::bigint
from gone

-- name: of_settled_rows
-- Which to give up: those of rows that a later change has settled.
p.operation is not null and exists (
    select from json_to_recordset(%(entities)s) as r("table" text, id text, version bigint)
    where (r."table", r.id) = (p.table_name, p.entity_id)
      -- Of changes from an outbox the later write counts, whatever comes last.
      and (r.version = 0 or p.source_time <= to_timestamp(0) + (r.version / 1000000) * interval '1 second'
                                              + (r.version %% 1000000) * interval '1 microsecond')
)

-- name: of_these_ids
-- Which to give up: those that a person has named.
p.id = any(%(ids)s::bigint[])

-- name: of_old_dead
-- Which to give up: those that have been dead for so long. What is tried all the same, since it waits for another
-- row, has a time at which it is tried next.
p.state = 'dead' and greatest(p.parked_at, p.next_attempt_at) < now() - make_interval(days => %(days)s)

-- name: of_partition
-- Which to give up: what a partition had parked before its topic was recreated. The offsets are of another
-- order now, and a comparison carries what the changes held.
(p.topic, p.kafka_partition) = (%(topic)s, %(partition)s)

-- name: lock_offsets
-- Keeps whoever applies these partitions out until the end of the transaction.
select from ftstream.applied_offset a
join (select distinct topic, partition from json_to_recordset(%(records)s) as r(topic text, partition integer)) r
  on (a.topic, a.kafka_partition) = (r.topic, r.partition)
order by a.topic, a.kafka_partition for update of a

-- name: tried
-- Those that are tried: parked ones, and dead ones that wait for another row. What they wait for may come after
-- an outage of the other direction, however long: they are dead so that somebody is told, and not for good.
(p.state = 'parked' or p.sqlstate in ('FT005', 'FT006', '23505'))

-- name: take
-- Takes parked changes out, to be applied in this transaction; aborts when one is not there any more.
with taken as (
    delete from ftstream.parked_change p
    using json_to_recordset(%(records)s) as r(topic text, partition integer, "offset" bigint)
    where (p.topic, p.kafka_partition, p.kafka_offset) = (r.topic, r.partition, r."offset") and {tried}
    returning 1
)
select ftstream.require(count(*) = %(count)s, 'FT001', 'parked changes were taken by another') from taken

-- name: queued
-- The rows that have changes waiting, dead ones included, in these partitions.
select distinct p.table_name, p.entity_id from ftstream.parked_change p
join json_to_recordset(%(partitions)s) as r(topic text, partition integer)
  on (p.topic, p.kafka_partition) = (r.topic, r.partition)
where p.operation is not null

-- name: waiting
-- Those of these rows that have changes waiting, dead ones included.
select distinct p.table_name, p.entity_id from ftstream.parked_change p
join json_to_recordset(%(entities)s) as r("table" text, id text) on (p.table_name, p.entity_id) = (r."table", r.id)
where p.operation is not null

-- name: due
-- All parked changes of rows of which one is due, in the order of the log; so many bytes, one row at least.
with queues as (
    select p.table_name, p.entity_id, min(p.next_attempt_at) as due, sum(octet_length(p.message)) as bytes
    from ftstream.parked_change p
    join json_to_recordset(%(partitions)s) as r(topic text, partition integer)
      on (p.topic, p.kafka_partition) = (r.topic, r.partition)
    where p.flow = %(flow)s and {tried}
    group by 1, 2 having min(p.next_attempt_at) <= now()
), ordered as (
    select q.*, sum(q.bytes) over (order by q.due, q.table_name, q.entity_id) - q.bytes as before
    from queues q order by q.due limit %(rows)s
)
select p.table_name, p.entity_id, p.operation is null or p.reread as reread,
       p.topic, p.kafka_partition, p.kafka_offset, p.key, p.message
from ftstream.parked_change p join ordered o using (table_name, entity_id)
where {tried} and o.before < %(bytes)s
order by p.topic, p.kafka_partition, p.kafka_offset

-- name: parked_of
-- The parked changes of these rows, in the order of the log, whoever tries them.
select p.table_name, p.entity_id, p.operation is null or p.reread as reread,
       p.topic, p.kafka_partition, p.kafka_offset, p.key, p.message
from ftstream.parked_change p
join json_to_recordset(%(entities)s) as r("table" text, id text) on (p.table_name, p.entity_id) = (r."table", r.id)
where p.flow = %(flow)s and {tried} and p.operation is not null
order by p.topic, p.kafka_partition, p.kafka_offset

-- name: postpone
-- Notes a try of a row's changes that failed, and tells whether they have died of it; once the tries that count have lasted long enough, they are
-- dead, all of them: those too that were parked behind them meanwhile, which would be applied without them.
with asked as (
    select p.topic, p.kafka_partition, p.kafka_offset, p.state as before,
           min(p.first_attempt_at) over () as first, max(p.attempts) over () as tries
    from ftstream.parked_change p
    where {tried} and (
        (p.topic, p.kafka_partition, p.kafka_offset) in (
            select r.topic, r.partition, r."offset"
            from json_to_recordset(%(records)s) as r(topic text, partition integer, "offset" bigint))
        or p.operation is not null and (p.table_name, p.entity_id) in (
            select r."table", r.id from json_to_recordset(%(entities)s) as r("table" text, id text)))
)
update ftstream.parked_change p
set attempts = a.tries + %(counted)s::boolean::integer,
    first_attempt_at = coalesce(a.first, case when %(counted)s then now() end),
    next_attempt_at = now() + make_interval(secs => least(60, power(2, least(a.tries, 6)))),
    sqlstate = %(sqlstate)s, error = %(error)s, hint = %(hint)s,
    state = (case when a.before = 'dead' or %(counted)s and now() - coalesce(a.first, now())
                       >= make_interval(secs => %(dead_after)s)
                  then 'dead' else 'parked' end)::ftstream.parked_state
from asked a
where (p.topic, p.kafka_partition, p.kafka_offset) = (a.topic, a.kafka_partition, a.kafka_offset)
returning p.state = 'dead' and a.before <> 'dead'

-- name: list
-- Parked and dead changes, the oldest first.
select id, flow, state, table_name, entity_id, operation, topic, kafka_partition, kafka_offset,
       octet_length(message) as bytes, sqlstate, error, hint, source_position, source_time, parked_at,
       attempts, next_attempt_at
from ftstream.parked_change
where (%(flow)s::text is null or flow = %(flow)s)
  and (%(state)s::text is null or state::text = %(state)s)
  and (%(ids)s::bigint[] is null or id = any(%(ids)s::bigint[]))
order by parked_at, id limit %(limit)s

-- name: record
-- The record itself, as it came.
select key, message from ftstream.parked_change where id = %(id)s

-- name: retry
-- Has the agent try these again, at once and for as long as a new one, with all others of their rows.
update ftstream.parked_change p
set state = 'parked', next_attempt_at = now(), attempts = 0, first_attempt_at = null,
    reread = p.reread or p.state = 'dead'
from ftstream.parked_change named
where named.id = any(%(ids)s::bigint[])
  and (p.id = named.id or (named.operation is not null and p.operation is not null
                           and (p.table_name, p.entity_id) = (named.table_name, named.entity_id)))
