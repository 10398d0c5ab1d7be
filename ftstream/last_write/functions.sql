-- What a site tells the other one of its rows, though nobody writes them now: that a write was refused, or how they are.
-- A write that cannot stand at the other site is refused: its own site takes the row as it is here, as a write of its
-- own, in the version after the one refused, and only if it has not written the row since (refusal.py). An answer in a
-- version above all overruled rows that nobody but their writer had touched.

-- What `init` has told the trigger of a captured table: site, table, key column, excluded columns.
create or replace function ftstream.captured_as(target regclass) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    arguments constant text[] := (
        select array_agg(convert_from(decode(a.piece, 'escape'), current_setting('server_encoding')) order by a.place)
        from pg_trigger t, unnest(string_to_array(encode(t.tgargs, 'escape'), '\000')) with ordinality as a(piece, place)
        where t.tgrelid = target and t.tgname = 'ftstream_capture' and a.place <= t.tgnargs
          and t.tgfoid = 'ftstream.capture()'::regprocedure);
begin
    if arguments is null then
        raise exception '% is not captured', target using errcode = 'object_not_in_prerequisite_state',
            hint = 'Run `ftstream init`.';
    end if;
    return arguments;
end $$;
revoke all on function ftstream.captured_as(regclass) from public;

-- What tells which jsonb columns of a row hold a JSON null, which in its image looks like no value at all:
-- an expression over the row as $1, or null if none can.
create or replace function ftstream.json_null_checks(target regclass, image jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select 'array_remove(array['
           || string_agg(format('case when ($1).%1$I is not null then %1$L end', a.attname), ', ') || '], null)'
    from pg_attribute a
    where a.attrelid = target and a.atttypid = 'jsonb'::regtype and image -> a.attname::text = 'null'
$$;
revoke all on function ftstream.json_null_checks(regclass, jsonb) from public;

-- An entity as it is here: its image, null if it is gone, and which of its columns hold a JSON null.
create or replace function ftstream.image_of(target regclass, entity text, out image jsonb, out json_nulls text[])
language plpgsql
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = '1' set bytea_output = 'hex' as $$
declare
    arguments constant text[] := ftstream.captured_as(target);
    found     record;
    checks    text;
begin
    perform ftstream.require_visible(target);
    execute format('select to_jsonb(t) as image, t as current from %s t where t.%I = $1::%s', target, arguments[3], (
        select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = target and a.attname = arguments[3]))
        into found using entity;
    checks := ftstream.json_null_checks(target, found.image);
    if checks is not null then
        execute 'select ' || checks into json_nulls using found.current;
    end if;
    image := found.image - arguments[4:];
end $$;
revoke all on function ftstream.image_of(regclass, text) from public;

-- Refuses a write of the other site (`over_version`, `over_site`): that site is told to take the row as it is here,
-- or the one `instead`, as its write of this version. Its own later writes are greater; so are this site's.
create or replace function ftstream.refuse(
    target regclass, entity text, over_version bigint, over_site text, version bigint, because text,
    instead jsonb, instead_nulls text[]
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    arguments constant text[]        := ftstream.captured_as(target);
    here      constant ftstream.site := arguments[1];
    there     constant ftstream.site := case here when 'external' then 'supabase' else 'external' end;
    name      constant text          := (select c.relname from pg_class c where c.oid = target);
    mine      record;
    row       record;
begin
    insert into ftstream.last_write as w
        (table_name, entity_id, version, site, operation, received, reserved)
    values (name, entity, 0, here, 'delete', over_version, refuse.version)
    on conflict (table_name, entity_id) do update
    set received_before = w.received, received = greatest(w.received, over_version),
        reserved = greatest(w.reserved, refuse.version)
    returning w.version, w.site into mine;
    select * into row from ftstream.image_of(target, entity);
    if instead is not null then
        row.image := instead;
        row.json_nulls := instead_nulls;
    end if;
    perform ftstream.hand_over(
        here, target, entity, case when row.image is null then 'delete' else 'update' end::ftstream.operation,
        refuse.version, 'ftstream', row.image, row.json_nulls,
        jsonb_build_object('site', there, 'refusal', jsonb_build_object(
            'over', jsonb_build_object('version', over_version, 'site', over_site),
            'theirs', jsonb_build_object('version', mine.version, 'site', mine.site),
            'because', because)));
end $$;
revoke all on function ftstream.refuse(regclass, text, bigint, text, bigint, text, jsonb, text[]) from public;

-- Tells the other site once more how these entities are here, if this site wrote them last: writes that were just
-- taken over, or, with `yields`, such as are to give way there to what was refused.
create or replace function ftstream.tell_again(target regclass, entities text[], yields boolean) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    arguments constant text[] := ftstream.captured_as(target);
    name      constant text   := (select c.relname from pg_class c where c.oid = target);
    written   record;
    row       record;
    told      integer := 0;
begin
    -- Whoever writes one of them meanwhile has taken its lock in last_write after that of the row.
    for written in
        select w.entity_id as entity, w.version, w.operation from ftstream.last_write w
        where w.table_name = name and w.entity_id = any(entities) and w.site = arguments[1]::ftstream.site
        order by w.entity_id for share
    loop
        select * into row from ftstream.image_of(target, written.entity);
        perform ftstream.hand_over(
            arguments[1]::ftstream.site, target, written.entity,
            case when row.image is null then 'delete' else written.operation end, written.version, 'ftstream', row.image,
            row.json_nulls, case when yields then '{"yields": true}' else '{}' end::jsonb);
        told := told + 1;
    end loop;
    return told;
end $$;
revoke all on function ftstream.tell_again(regclass, text[], boolean) from public;

-- Hands entities of a captured table to the outbox as they are here, though nobody writes them now: rows that are
-- older than ftstream. Each gets at least the version given, and one that no refusal has taken; a null leaves a last
-- write of this site as it is, so that it is told once more and takes nobody's place. With `only_unknown`, those that
-- have a last write are passed by. How many were handed over.
create or replace function ftstream.hand_over_again(
    target regclass, entities text[], versions bigint[], author text, only_unknown boolean
) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    arguments constant text[] := ftstream.captured_as(target);
    name      constant text   := (select c.relname from pg_class c where c.oid = target);
    key_type  constant text   := (
        select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = target and a.attname = arguments[3]);
    asked     record;
    row       record;
    noted     ftstream.operation;
    written   ftstream.operation;
    stamp     bigint;
    done      integer := 0;
begin
    for asked in select e.id, e.version from unnest(entities, versions) as e(id, version) order by e.id loop
        -- Row first, then last_write, as a user's own write takes its locks; and the image after both, or a
        -- user who commits meanwhile would be told the other site as he was before, in a greater version.
        execute format('select from %s t where t.%I = $1::%s for update', target, arguments[3], key_type) using asked.id;
        insert into ftstream.last_write as w (table_name, entity_id, version, site, operation)
        values (name, asked.id, coalesce(asked.version, 1), arguments[1]::ftstream.site, 'update')
        on conflict (table_name, entity_id) do update
        set version = case when asked.version is null and w.site = excluded.site then w.version
                           else greatest(asked.version, w.version + 1, w.reserved + 1) end,
            site = excluded.site
        where not only_unknown
        returning w.version, w.operation into stamp, noted;
        continue when stamp is null;
        select * into row from ftstream.image_of(target, asked.id);
        written := case when row.image is null then 'delete' when noted = 'delete' then 'update' else noted end;
        update ftstream.last_write w set operation = written where (w.table_name, w.entity_id) = (name, asked.id);
        perform ftstream.hand_over(
            arguments[1]::ftstream.site, target, asked.id, written, stamp, author, row.image, row.json_nulls);
        done := done + 1;
    end loop;
    return done;
end $$;
revoke all on function ftstream.hand_over_again(regclass, text[], bigint[], text, boolean) from public;
