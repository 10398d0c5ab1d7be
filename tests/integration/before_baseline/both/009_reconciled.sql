-- Rows that are older than ftstream, which no trigger has told the other site of: `reconcile` hands them over.

create table ftstream.reconciled (
    table_name    text        primary key,
    reconciled_at timestamptz not null default now(),
    how           text        not null
);
comment on table ftstream.reconciled is
    'The tables whose every row here was captured, or handed over by `reconcile`: their flow may start';
alter table ftstream.reconciled enable row level security;

-- Hands entities of a captured table to the outbox as they are here, though nobody writes them now: an answer
-- to a write that was refused, or rows that are older than ftstream. Each gets at least the version given; a
-- null leaves a last write of this site as it is, so that it is told once more and takes nobody's place. With
-- `only_unknown`, those that have a last write are passed by. How many were handed over.
create or replace function ftstream.hand_over_again(
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
    noted      ftstream.operation;
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
        values (name, asked.id, coalesce(asked.version, 1), arguments[1]::ftstream.site, 'update')
        on conflict (table_name, entity_id) do update
        set version = case when asked.version is null and w.site = excluded.site then w.version
                           else greatest(asked.version, w.version + 1) end,
            site = excluded.site
        where not only_unknown
        returning w.version, w.operation into stamp, noted;
        continue when stamp is null;
        execute format('select to_jsonb(t) as image, t as current from %s t where t.%I = $1::%s',
                       target, arguments[3], key_type) into found using asked.id;
        json_nulls := null;
        checks := ftstream.json_null_checks(target, found.image);
        if checks is not null then
            execute 'select ' || checks into json_nulls using found.current;
        end if;
        written := case when found.image is null then 'delete' when noted = 'delete' then 'update' else noted end;
        update ftstream.last_write w set operation = written where (w.table_name, w.entity_id) = (name, asked.id);
        perform ftstream.hand_over(
            arguments[1]::ftstream.site, target, asked.id, written, stamp, author,
            found.image - arguments[4:], json_nulls);
        done := done + 1;
    end loop;
    return done;
end $$;

-- The tables with rows that refer to this one, whatever their foreign keys say, and how many.
create function ftstream.referring(target regclass, entity text) returns table (child text, rows bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = 'off' as $$
declare
    key record;
    fk  record;
begin
    perform ftstream.require_referred_to(target);
    select * into key from ftstream.key_of(target);
    for fk in select * from ftstream.foreign_keys f where f.parent = target order by f.name loop
        execute format('select count(*) from %s c join %s p on (%s) = (%s) where p.%I = $1::%s',
                       fk.child::regclass, target, fk.parent_columns, fk.child_columns, key.name, key.type)
            into rows using entity;
        child := fk.child::regclass::text;
        if rows > 0 then
            return next;
        end if;
    end loop;
end $$;
revoke all on function ftstream.referring(regclass, text) from public;
