-- Foreign keys, which PostgreSQL does not look after while ftstream applies (triggers are off, so that
-- updated_at stays as it was written). What they would have guarded is derived from the catalog.

-- Each with its columns as lists of SQL, for the aliases c (child) and p (parent).
create view ftstream.foreign_keys with (security_invoker = true) as
select f.conname::text as name, f.conrelid as child, f.confrelid as parent, f.confdeltype as on_delete,
       n.nspname || '.' || r.relname as parent_name,
       k.child_columns, k.parent_columns, k.child_texts, k.present, k.to_null, k.to_default, k.names
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
           array_agg(p.attname::text order by u.n) as names
    from unnest(f.conkey, f.confkey) with ordinality as u(child, parent, n)
    join pg_catalog.pg_attribute c on (c.attrelid, c.attnum) = (f.conrelid, u.child)
    join pg_catalog.pg_attribute p on (p.attrelid, p.attnum) = (f.confrelid, u.parent)) k
where f.contype = 'f' and f.conparentid = 0;

-- The primary key of a table and its type; null where it has several columns.
create function ftstream.key_of(target regclass, out name text, out type text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select a.attname, format_type(a.atttypid, null) from pg_catalog.pg_index i
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = target and i.indisprimary and i.indnkeyatts = 1
$$;
revoke all on function ftstream.key_of(regclass) from public;

-- Aborts with FT005 unless all that these rows refer to is here; what is, stays until the transaction ends.
-- The detail lists what is missing.
create function ftstream.require_parents(child_table regclass, ids text[]) returns void
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
            '    ''table'', %11$L, ''id'', c.%5$I::text, ''parent'', %8$L, ''columns'', %9$L::text[], ''key'', array[%10$s]))'
            ' from %4$s c where c.%5$I = any($1::%6$s[]) and %7$s'
            '  and not exists (select from %1$s p where (%2$s) = (%3$s))',
            fk.parent::regclass, fk.parent_columns, fk.child_columns, child_table, key.name, key.type, fk.present,
            fk.parent_name, fk.names, fk.child_texts, (select r.relname from pg_class r where r.oid = child_table)) into found using ids;
        missing := missing || coalesce(found, '[]');
    end loop;
    if missing <> '[]' then
        raise exception 'rows are missing that % refers to', child_table using errcode = 'FT005', detail = missing::text;
    end if;
end $$;
revoke all on function ftstream.require_parents(regclass, text[]) from public;

-- Does to what refers to rows that are about to be deleted what its foreign key says; a table that is
-- carried with them is left to its own changes. Aborts with FT006 where a foreign key forbids the delete;
-- the detail lists who refers to what.
create function ftstream.release_children(parent_table regclass, ids text[], carried regclass[]) returns void
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
                '   and not (c.tableoid = p.tableoid and c.%3$I::text = any($1))',  -- it goes with it
                key.name, fk.child::regclass::text, coalesce(child_key.name, 'ctid'), fk.child::regclass, parent_table,
                fk.parent_columns, fk.child_columns, key.type) into found using ids;
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
revoke all on function ftstream.release_children(regclass, text[], regclass[]) from public;

-- A row that some captured or guarded table refers to, as an image; null if there is none.
create function ftstream.parent_image(parent_table regclass, columns text[], key text[]) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = '1' set bytea_output = 'hex' set row_security = 'off' as $$
declare
    image jsonb;
begin
    perform ftstream.require_referred_to(parent_table);
    execute format('select to_jsonb(p) from %s p where array[%s] = $1', parent_table, (
        select string_agg(format('p.%I::text', c.name), ', ' order by c.n) from unnest(columns) with ordinality as c(name, n)))
        into image using key;
    return image;
end $$;
revoke all on function ftstream.parent_image(regclass, text[], text[]) from public;

-- Puts a row here that others refer to and that no flow carries, if nothing is in its way.
create function ftstream.carry_parent(parent_table regclass, image jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = 'off' as $$
declare
    columns text;
    done    integer;
begin
    perform ftstream.require_referred_to(parent_table);
    select string_agg(quote_ident(a.attname), ', ') into columns from pg_catalog.pg_attribute a
    where a.attrelid = parent_table and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
      and image ? a.attname::text;
    execute format('insert into %1$s (%2$s) select %2$s from jsonb_populate_record(null::%1$s, $1) on conflict do nothing',
                   parent_table, columns) using image;
    get diagnostics done = row_count;
    return done = 1;
end $$;
revoke all on function ftstream.carry_parent(regclass, jsonb) from public;

-- What those two may touch: tables that one of the flows' tables refers to, or one of those in turn.
create function ftstream.require_referred_to(target regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (
        with recursive reached(table_id) as (
            select t.tgrelid from pg_catalog.pg_trigger t where t.tgfoid in ('ftstream.capture()'::regprocedure, 'ftstream.refuse_edit()'::regprocedure)
            union select f.parent from ftstream.foreign_keys f join reached r on f.child = r.table_id)
        select from reached where table_id = target) then
        raise exception 'no table of a flow refers to %', target using errcode = 'insufficient_privilege';
    end if;
end $$;
revoke all on function ftstream.require_referred_to(regclass) from public;
