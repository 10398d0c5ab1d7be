-- The outbox as a queue: what has been written here and is not in Kafka yet.

-- name: waiting
-- Whether there is anything to publish.
select exists (select from ftstream.outbox where table_name = any(%(tables)s::text[]))

-- name: begin_publishing
-- One publisher at a time: the lock lasts as long as the transaction, which is ended if its worker is
-- frozen. No cursor is kept, so that a transaction that commits late is not passed over.
select set_config('idle_in_transaction_session_timeout', %(patience)s, true),
       pg_try_advisory_xact_lock(hashtext('ftstream.publish'), hashtext(current_database())) as alone

-- name: next
-- The oldest changes, so many rows and bytes of them, one at least.
select o.id, o.table_name, o.entity_id, o.payload
from (select x.*, sum(octet_length(x.payload)) over (order by x.id) - octet_length(x.payload) as before
      from (select * from ftstream.outbox where table_name = any(%(tables)s::text[])
            order by id limit %(rows)s) x) o
where o.before < %(bytes)s order by o.id

-- name: published
-- These are in Kafka.
delete from ftstream.outbox where id = any(%(ids)s::bigint[])
