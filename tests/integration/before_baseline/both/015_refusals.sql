-- A write that cannot stand at the other site is refused: its own site takes the row as it is here, as a write of
-- its own, in the version after the one refused, and only if it has not written the row since (last_write/refusal.py).
-- An answer in a version above all overruled rows that nobody but their writer had touched.

create index last_write_refused on ftstream.last_write (table_name) where reserved > version;

-- What `init` has told the trigger of a captured table: site, table, key column, excluded columns.
create function ftstream.captured_as(target regclass) returns text[]
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

-- An entity as it is here: its image, null if it is gone, and which of its columns hold a JSON null.
create function ftstream.image_of(target regclass, entity text, out image jsonb, out json_nulls text[])
language plpgsql
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = '1' set bytea_output = 'hex' set row_security = 'off' as $$
declare
    arguments constant text[] := ftstream.captured_as(target);
    found     record;
    checks    text;
begin
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
create function ftstream.refuse(
    target regclass, entity text, over_version bigint, over_site text, version bigint, because text,
    instead jsonb, instead_nulls text[]
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = 'off' as $$
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
create function ftstream.tell_again(target regclass, entities text[], yields boolean) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = 'off' as $$
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

-- Each with its columns as lists of SQL, for the aliases c (child) and p (parent). ON DELETE SET NULL of a column
-- that is GENERATED ALWAYS AS IDENTITY cannot be done: such a key counts as one that forbids the delete.
create or replace view ftstream.foreign_keys with (security_invoker = true) as
select f.conname::text as name, f.conrelid as child, f.confrelid as parent,
       case when f.confdeltype = 'n' and k.fixed then 'a' else f.confdeltype end::"char" as on_delete,
       n.nspname || '.' || r.relname as parent_name,
       k.child_columns, k.parent_columns, k.child_texts, k.present, k.to_null, k.to_default, k.names,
       k.child_names, coalesce(k.nulls, '{}') as nulls
from pg_catalog.pg_constraint f
join pg_catalog.pg_class r on r.oid = f.confrelid
join pg_catalog.pg_namespace n on n.oid = r.relnamespace,
lateral (
    select string_agg(format('c.%I', c.attname), ', ' order by u.n) as child_columns,
           string_agg(format('p.%I', p.attname), ', ' order by u.n) as parent_columns,
           string_agg(format('c.%I::text', c.attname), ', ' order by u.n) as child_texts,
           string_agg(format('c.%I is not null', c.attname), ' and ' order by u.n) as present,
           string_agg(format('%I = null', c.attname), ', ' order by u.n) as to_null,
           string_agg(format('%I = default', c.attname), ', ' order by u.n) as to_default,
           array_agg(p.attname::text order by u.n) as names,
           array_agg(c.attname::text order by u.n) as child_names,
           bool_or(c.attidentity = 'a') as fixed,
           array_agg(c.attname::text order by u.n) filter (where not c.attnotnull) as nulls
    from unnest(f.conkey, f.confkey) with ordinality as u(child, parent, n)
    join pg_catalog.pg_attribute c on (c.attrelid, c.attnum) = (f.conrelid, u.child)
    join pg_catalog.pg_attribute p on (p.attrelid, p.attnum) = (f.confrelid, u.parent)) k
where f.contype = 'f' and f.conparentid = 0;

-- Aborts with FT005 unless all that these rows refer to is here; what is, stays until the transaction ends.
-- The detail lists what is missing, and the columns that refer to it and may be null.
create or replace function ftstream.require_parents(child_table regclass, ids text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = 'off' as $$
declare
    key     record;
    fk      record;
    found   jsonb;
    missing jsonb := '[]';
begin
    select * into key from ftstream.key_of(child_table);
    for fk in select * from ftstream.foreign_keys f where f.child = child_table order by f.name loop
        execute format(
            'select from %1$s p where (%2$s) in (select %3$s from %4$s c where c.%5$I = any($1::%6$s[]) and %7$s)'
            ' for key share of p',
            fk.parent::regclass, fk.parent_columns, fk.child_columns, child_table, key.name, key.type, fk.present)
            using ids;
        -- A statement of its own: it sees what was deleted while the one before waited.
        execute format(
            'select jsonb_agg(jsonb_build_object('
            '    ''table'', %11$L, ''id'', c.%5$I::text, ''parent'', %8$L, ''columns'', %9$L::text[], ''key'', array[%10$s],'
            '    ''nulls'', %12$L::text[]))'
            ' from %4$s c where c.%5$I = any($1::%6$s[]) and %7$s'
            '  and not exists (select from %1$s p where (%2$s) = (%3$s))',
            fk.parent::regclass, fk.parent_columns, fk.child_columns, child_table, key.name, key.type, fk.present,
            fk.parent_name, fk.names, fk.child_texts, (select r.relname from pg_class r where r.oid = child_table),
            fk.nulls) into found using ids;
        missing := missing || coalesce(found, '[]');
    end loop;
    if missing <> '[]' then
        raise exception 'rows are missing that % refers to', child_table using errcode = 'FT005', detail = missing::text;
    end if;
end $$;

-- What a row of this image refers to that is not here, as require_parents lists it.
create function ftstream.missing_parents(child_table regclass, image jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = 'off' as $$
declare
    key     record;
    fk      record;
    wanted  text[];
    there   boolean;
    missing jsonb := '[]';
begin
    select * into key from ftstream.key_of(child_table);
    for fk in select * from ftstream.foreign_keys f where f.child = child_table order by f.name loop
        wanted := array(select image ->> c.name from unnest(fk.child_names) with ordinality as c(name, n) order by c.n);
        continue when array_position(wanted, null) is not null;
        execute format('select exists (select from %s p where array[%s] = $1)', fk.parent::regclass, (
            select string_agg(format('p.%I::text', c.name), ', ' order by c.n)
            from unnest(fk.names) with ordinality as c(name, n))) into there using wanted;
        continue when there;
        missing := missing || jsonb_build_array(jsonb_build_object(
            'table', (select r.relname from pg_class r where r.oid = child_table), 'id', image ->> key.name,
            'parent', fk.parent_name, 'columns', fk.names, 'key', wanted, 'nulls', fk.nulls));
    end loop;
    return missing;
end $$;
revoke all on function ftstream.missing_parents(regclass, jsonb) from public;

-- Does to what refers to rows that are about to be deleted what its foreign key says; a table that is
-- carried with them is left to its own changes, and so are rows of the same table that are `rewritten` with them:
-- what they refer to then is looked at once they are. Aborts with FT006 where a foreign key forbids the delete;
-- the detail lists who refers to what.
drop function ftstream.release_children(regclass, text[], regclass[]);
create function ftstream.release_children(
    parent_table regclass, ids text[], carried regclass[], rewritten text[] default '{}'
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = 'off' as $$
declare
    key       record;
    child_key record;
    fk        record;
    condition text;
    found     jsonb;
    children  text[];
    referring jsonb := '[]';
begin
    if coalesce(cardinality(ids), 0) = 0 then
        return;
    end if;
    select * into key from ftstream.key_of(parent_table);
    for fk in select * from ftstream.foreign_keys f where f.parent = parent_table order by f.name loop
        condition := format('(%s) in (select %s from %s p where p.%I = any($1::%s[]))',
                            fk.child_columns, fk.parent_columns, parent_table, key.name, key.type);
        if fk.on_delete in ('a', 'r') then
            select * into child_key from ftstream.key_of(fk.child);
            execute format(
                'select jsonb_agg(jsonb_build_object(''id'', p.%1$I::text, ''child'', %2$L, ''row'', c.%3$I::text))'
                ' from %4$s c join %5$s p on (%6$s) = (%7$s)'
                ' where p.%1$I = any($1::%8$s[])'
                '   and not (c.tableoid = p.tableoid and c.%3$I::text = any($1 || $2))',  -- it goes with it, or lets go
                key.name, fk.child::regclass::text, coalesce(child_key.name, 'ctid'), fk.child::regclass, parent_table,
                fk.parent_columns, fk.child_columns, key.type) into found using ids, rewritten;
            referring := referring || coalesce(found, '[]');
        elsif fk.child = any(carried) then
            continue;
        elsif fk.on_delete = 'c' then
            select * into child_key from ftstream.key_of(fk.child);
            if child_key.name is not null then
                execute format('select array_agg(c.%I::text) from %s c where %s', child_key.name, fk.child::regclass, condition)
                    into children using ids;
                perform ftstream.release_children(fk.child::regclass, children, carried);
            end if;
            execute format('delete from %s c where %s', fk.child::regclass, condition) using ids;
        elsif fk.on_delete = 'n' then
            execute format('update %s c set %s where %s', fk.child::regclass, fk.to_null, condition) using ids;
        else
            execute format('update %s c set %s where %s', fk.child::regclass, fk.to_default, condition) using ids;
        end if;
    end loop;
    if referring <> '[]' then
        raise exception 'rows refer to those of % that are to be deleted', parent_table
            using errcode = 'FT006', detail = referring::text;
    end if;
end $$;
revoke all on function ftstream.release_children(regclass, text[], regclass[], text[]) from public;

-- Hands entities of a captured table to the outbox as they are here, though nobody writes them now: rows that are
-- older than ftstream. Each gets at least the version given, and one that no refusal has taken; a null leaves a last
-- write of this site as it is, so that it is told once more and takes nobody's place. With `only_unknown`, those that
-- have a last write are passed by. How many were handed over.
create or replace function ftstream.hand_over_again(
    target regclass, entities text[], versions bigint[], author text, only_unknown boolean
) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = 'off' as $$
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
