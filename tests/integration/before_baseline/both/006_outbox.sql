-- Flows that both sites may write (guidelines 5): who wrote each entity last, and the outbox that changes
-- leave through. `init` puts the triggers on the flows' tables.

create type ftstream.site as enum ('external', 'supabase');

alter type ftstream.outcome add value 'duplicate';
alter type ftstream.outcome add value 'refused';
alter type ftstream.outcome add value 'conflict_update_update';
alter type ftstream.outcome add value 'conflict_update_delete';
alter type ftstream.outcome add value 'conflict_delete_update';
alter type ftstream.outcome add value 'conflict_insert_insert';

alter table ftstream.sync_log add column change jsonb;
comment on column ftstream.sync_log.change is 'the change as it was captured, of flows captured by outbox: what a conflict lost is here';

create table ftstream.last_write (
    table_name      text               not null,
    entity_id       text               not null,
    version         bigint             not null,
    site            ftstream.site      not null,
    operation       ftstream.operation not null,
    received        bigint             not null default 0,
    received_before bigint             not null default 0,
    primary key (table_name, entity_id)
);
comment on table ftstream.last_write is
    'The greatest version of each entity, and whose it is; a deleted entity stays as its tombstone';
comment on column ftstream.last_write.version is 'microseconds since 1970 of the writer''s clock, or one more than the version it overwrote';
comment on column ftstream.last_write.received is 'the greatest version that has come from the other site, whatever became of it';
comment on column ftstream.last_write.received_before is 'what `received` was until the last change came';
create index last_write_tombstones on ftstream.last_write (version) where operation = 'delete';
alter table ftstream.last_write enable row level security;

create table ftstream.outbox (
    id         bigint generated always as identity primary key,
    table_name text   not null,
    entity_id  text   not null,
    payload    text   not null
);
comment on table ftstream.outbox is
    'Changes on their way to Kafka. On External the log is their only copy: each row is deleted as soon as it is written';
alter table ftstream.outbox enable row level security;

-- Who PostgREST acts for, from the token's own claims: what lies deeper (user_metadata) the user may set.
create function ftstream.claimed(claims text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(claims, '') = '' then
        return null;
    end if;
    return coalesce(nullif(claims::jsonb ->> 'email', ''), nullif(claims::jsonb ->> 'sub', ''));
exception when invalid_text_representation then
    return null;  -- somebody has set it to what is no token
end $$;
revoke all on function ftstream.claimed(text) from public;

-- Hands an entity as it is here to the outbox: its last write, and its row, null if it is gone.
create function ftstream.hand_over(
    here ftstream.site, target regclass, entity text, written ftstream.operation, version bigint, author text,
    image jsonb, json_nulls text[]
) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name    constant text := (select c.relname from pg_class c where c.oid = target);
    message constant text := jsonb_build_object(
        'id', entity, 'op', written, 'site', here, 'version', version, 'author', author, 'row', image,
        'json_nulls', json_nulls);
    number  bigint;
begin
    if octet_length(message) > 15728640 then
        raise exception '% % has % bytes: a row of over 15 MiB cannot be carried to the other site',
            target, entity, octet_length(message) using errcode = 'program_limit_exceeded';
    end if;
    insert into ftstream.outbox (table_name, entity_id, payload) values (name, entity, message)
    returning id into number;
    if here = 'external' then
        delete from ftstream.outbox where id = number;  -- Debezium reads the insert from the log
    else
        perform pg_notify('override_changes', json_build_object(
            'table', name, 'operation', written, 'id', entity, 'timestamp', now())::text);
    end if;
end $$;
revoke all on function ftstream.hand_over(
    ftstream.site, regclass, text, ftstream.operation, bigint, text, jsonb, text[]) from public;

-- What tells which jsonb columns of a row hold a JSON null, which in its image looks like no value at all:
-- an expression over the row as $1, or null if none can.
create function ftstream.json_null_checks(target regclass, image jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select 'array_remove(array['
           || string_agg(format('case when ($1).%1$I is not null then %1$L end', a.attname), ', ') || '], null)'
    from pg_attribute a
    where a.attrelid = target and a.atttypid = 'jsonb'::regtype and image -> a.attname::text = 'null'
$$;
revoke all on function ftstream.json_null_checks(regclass, jsonb) from public;

-- Fires for each row that somebody else than ftstream writes, in the writer's own transaction: notes the
-- write, and hands the row to the outbox as it now is. NEW can be older than that, when a statement or a
-- trigger writes sibling rows. Should it fail, the write fails with it: there is no silent gap.
-- Arguments: site, qualified table, key column, excluded columns.
create function ftstream.capture() returns trigger
language plpgsql security definer
-- Values as text that every server reads alike. Row security must not hide a row: that is an error here.
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = '1' set bytea_output = 'hex' set row_security = 'off' as $$
declare
    here     constant ftstream.site := tg_argv[0];
    target   constant regclass      := tg_argv[1];
    key      constant name          := tg_argv[2];
    excluded constant text[]        := tg_argv[3:];
    name     constant text          := (select c.relname from pg_class c where c.oid = target);
    claims   constant text          := current_setting('request.jwt.claims', true);
    -- Who: the login that PostgREST acts for, or the user that the application names, or the role.
    author   constant text          := coalesce(
        nullif(current_setting('ftstream.author', true), ''),
        ftstream.claimed(claims), session_user::text);
    probe      record;
    found      record;
    renamed    boolean := false;
    turn       integer;
    json_nulls text[];
    checks     text;
    written    ftstream.operation;
    stamp      bigint;
begin
    if tg_op = 'UPDATE' then
        execute format('select ($1).%1$I <> ($2).%1$I', key) into renamed using old, new;
    end if;
    -- Two entities, where an update has changed the key: the old one is gone, the new one is there.
    foreach turn in array case when renamed then array[1, 2] else array[2] end loop
        probe := case when turn = 1 or tg_op = 'DELETE' then old else new end;
        -- One plain look by the key is the cheapest plan to make, which is most of what capturing costs.
        execute format('select t.%1$I::text as id, to_jsonb(t) as image, t as current from %2$s t'
                       ' where t.%1$I = ($1).%1$I', key, target) into found using probe;
        if found.id is null then
            execute format('select ($1).%1$I::text as id, null::jsonb as image, null::text as current', key)
                into found using probe;
        end if;
        json_nulls := null;
        checks := ftstream.json_null_checks(target, found.image);
        if checks is not null then
            execute 'select ' || checks into json_nulls using found.current;
        end if;
        insert into ftstream.last_write as w (table_name, entity_id, version, site, operation)
        values (name, found.id, (extract(epoch from clock_timestamp()) * 1000000)::bigint, here,
                (case when found.image is null then 'delete' when renamed then 'insert'
                      else lower(tg_op) end)::ftstream.operation)
        on conflict (table_name, entity_id) do update
        set version = greatest(excluded.version, w.version + 1), site = excluded.site, operation = excluded.operation
        returning w.version, w.operation into stamp, written;
        perform ftstream.hand_over(
            here, target, found.id, written, stamp, author, found.image - excluded, json_nulls);
    end loop;
    return null;
end $$;
revoke all on function ftstream.capture() from public;

-- Hands entities of a captured table to the outbox as they are here, though nobody writes them now: an answer
-- to a write that was refused, or rows that are older than ftstream. Each gets at least the version given;
-- with `only_unknown`, those that have a last write are passed by. How many were handed over.
create function ftstream.hand_over_again(
    target regclass, entities text[], versions bigint[], author text, only_unknown boolean
) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = '1' set bytea_output = 'hex' set row_security = 'off' as $$
declare
    name       constant text   := (select c.relname from pg_class c where c.oid = target);
    -- What `init` has told the trigger: nothing else is handed over, whoever calls.
    arguments  constant text[] := (
        select array_agg(convert_from(decode(a.piece, 'escape'), current_setting('server_encoding')) order by a.place)
        from pg_trigger t, unnest(string_to_array(encode(t.tgargs, 'escape'), '\000')) with ordinality as a(piece, place)
        where t.tgrelid = target and t.tgname = 'ftstream_capture' and a.place <= t.tgnargs
          and t.tgfoid = 'ftstream.capture()'::regprocedure);
    key_type   constant text   := (
        select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = target and a.attname = arguments[3]);
    asked      record;
    found      record;
    written    ftstream.operation;
    json_nulls text[];
    checks     text;
    stamp      bigint;
    done       integer := 0;
begin
    if arguments is null then
        raise exception '% is not captured', target using errcode = 'object_not_in_prerequisite_state',
            hint = 'Run `ftstream init`.';
    end if;
    for asked in select e.id, e.version from unnest(entities, versions) as e(id, version) order by e.id loop
        -- Row first, then last_write, as a user's own write takes its locks; and the image after both, or a
        -- user who commits meanwhile would be told the other site as he was before, in a greater version.
        execute format('select from %s t where t.%I = $1::%s for update', target, arguments[3], key_type) using asked.id;
        insert into ftstream.last_write as w (table_name, entity_id, version, site, operation)
        values (name, asked.id, asked.version, arguments[1]::ftstream.site, 'update')
        on conflict (table_name, entity_id) do update
        set version = greatest(excluded.version, w.version + 1), site = excluded.site
        where not only_unknown
        returning w.version into stamp;
        continue when stamp is null;
        execute format('select to_jsonb(t) as image, t as current from %s t where t.%I = $1::%s',
                       target, arguments[3], key_type) into found using asked.id;
        json_nulls := null;
        checks := ftstream.json_null_checks(target, found.image);
        if checks is not null then
            execute 'select ' || checks into json_nulls using found.current;
        end if;
        written := case when found.image is null then 'delete' else 'update' end;
        update ftstream.last_write w set operation = written where (w.table_name, w.entity_id) = (name, asked.id);
        perform ftstream.hand_over(
            arguments[1]::ftstream.site, target, asked.id, written, stamp, author,
            found.image - arguments[4:], json_nulls);
        done := done + 1;
    end loop;
    return done;
end $$;
revoke all on function ftstream.hand_over_again(regclass, text[], bigint[], text, boolean) from public;

-- Argument: the flow. Rows that go at once leave no trace of which they were.
create function ftstream.refuse_truncate() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '%.% is synchronised row by row (flow %): TRUNCATE is refused',
        tg_table_schema, tg_table_name, tg_argv[0]
        using errcode = 'object_not_in_prerequisite_state', hint = format('DELETE FROM %I.%I', tg_table_schema, tg_table_name);
end $$;
revoke all on function ftstream.refuse_truncate() from public;
