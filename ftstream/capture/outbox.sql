-- The outbox as a queue: what has been written here and is not in Kafka yet.

-- name: waiting
-- Whether there is anything to publish.
select exists (select from ftstream.outbox where table_name = any(%(tables)s::text[]))

-- name: begin_publishing
-- One publisher at a time: the lock lasts as long as the transaction, which is ended if its worker is
-- frozen. No cursor is kept, so that a transaction that commits late is not passed over.
select set_config('idle_in_transaction_session_timeout', %(patience)s, true),
       (select true from ftstream.turn where name = 'publish' for update skip locked) as alone

-- name: next
-- The oldest changes, so many rows and bytes of them, one at least. Of several messages of one row that a
-- transaction has written (it has SET CONSTRAINTS ALL IMMEDIATE) the last alone: the others tell what nobody has
-- committed. All of a transaction's are seen at once, whichever come next.
select o.id, o.table_name, o.entity_id, o.payload
from (select x.*, sum(octet_length(x.payload)) over (order by x.id) - octet_length(x.payload) as before
      from (select m.* from ftstream.outbox m
            where m.table_name = any(%(tables)s::text[])
              and not exists (select from ftstream.outbox later
                              where (later.transaction, later.table_name, later.entity_id)
                                  = (m.transaction, m.table_name, m.entity_id) and later.id > m.id)
            order by m.id limit %(rows)s) x) o
where o.before < %(bytes)s order by o.id

-- name: published
-- These are in Kafka; with each go those of its row and transaction that came before it.
delete from ftstream.outbox m
where m.id in (select unnest(%(ids)s::bigint[])
               union all
               select earlier.id from ftstream.outbox last
               join ftstream.outbox earlier on (earlier.transaction, earlier.table_name, earlier.entity_id)
                                             = (last.transaction, last.table_name, last.entity_id)
               where last.id = any(%(ids)s::bigint[]) and earlier.id < last.id)
