-- Heartbeats through the outbox, which nobody writes to for hours.

-- Has the outbox of this site carry a heartbeat for each of these captured tables: it goes the way of a write, through
-- connector or publisher, topic and agent, and is no change.
create or replace function ftstream.beat(tables regclass[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    target regclass;
    beat   constant text := json_build_object('op', 'm', 'source', json_build_object(
        'ts_ms', (extract(epoch from clock_timestamp()) * 1000)::bigint))::text;
    name   text;
    number bigint;
begin
    foreach target in array tables loop
        name := (select c.relname from pg_class c where c.oid = target);
        if (ftstream.captured_as(target))[1] = 'external' then
            insert into ftstream.outbox (table_name, entity_id, payload) values (name, 'ftstream', beat)
            returning id into number;
            delete from ftstream.outbox where id = number;  -- Debezium reads the insert from the log
        else
            insert into ftstream.outbox (table_name, entity_id, payload, transaction)
            values (name, 'ftstream', beat, pg_current_xact_id()::text::bigint);
        end if;
    end loop;
end $$;
revoke all on function ftstream.beat(regclass[]) from public;
