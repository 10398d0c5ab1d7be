-- What applying has the database do: refuse what does not fit, and look after foreign keys, which PostgreSQL does not
-- while ftstream applies (triggers are off, so that updated_at stays as it was written).

-- Raises the given SQLSTATE unless the condition holds: lets a statement of a pipeline, sent in one
-- network round trip, abort the transaction.
create or replace function ftstream.require(condition boolean, failure text, explanation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if condition is not true then
        raise exception '%', explanation using errcode = failure;
    end if;
end $$;
revoke all on function ftstream.require(boolean, text, text) from public;

-- Fails if one of these tables is not as it was seen: each change of its columns writes its row in pg_class,
-- or it is another table under the name. Called once a transaction has written, when nobody can alter them.
create or replace function ftstream.require_unchanged(tables oid[], seen text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text;
begin
    select t.id::regclass::text into name
    from unnest(tables, seen) as t(id, seen) left join pg_class c on c.oid = t.id
    where c.xmin::text is distinct from t.seen limit 1;
    if found then
        raise exception '% was altered', name using errcode = 'FT018';
    end if;
end $$;
revoke all on function ftstream.require_unchanged(oid[], text[]) from public;

-- Fails with the column and the value, which the column's type would round, cut or write otherwise.
create or replace function ftstream.inexact(place text, type text, value text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '%: % cannot hold % exactly', place, type, left(value, 100) using errcode = 'FT017';
end $$;
revoke all on function ftstream.inexact(text, text, text) from public;

-- Fails if the table's columns would hold anything else than this image says, for those who write it by
-- jsonb_populate_record: that rounds and cuts. A value that another type spells otherwise is the same.
create or replace function ftstream.require_exact(target regclass, image jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    held jsonb;
    odd  record;
begin
    execute format('select to_jsonb(jsonb_populate_record(null::%s, $1))', target) into held using image;
    select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, image -> a.attname::text as value
    into odd from pg_attribute a
    where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
      and image -> a.attname::text <> held -> a.attname::text
      and image ->> a.attname::text is distinct from held ->> a.attname::text
      and case when a.atttypid = any('{date,timestamp,timestamptz}'::regtype[])
               then (image ->> a.attname::text)::timestamptz <> (held ->> a.attname::text)::timestamptz
               -- The blanks of char(n) are no part of the value.
               when a.atttypid = 'bpchar'::regtype
               then rtrim(image ->> a.attname::text, ' ') <> rtrim(held ->> a.attname::text, ' ')
               else true end
    order by a.attnum limit 1;
    if found then
        perform ftstream.inexact(target || '.' || odd.name, odd.type, odd.value::text);
    end if;
end $$;
revoke all on function ftstream.require_exact(regclass, jsonb) from public;

-- Each with its columns as lists of SQL, for the aliases c (child) and p (parent). ON DELETE SET NULL of a column
-- that is GENERATED ALWAYS AS IDENTITY cannot be done: such a key counts as one that forbids the delete. `trusted`: one
-- role owns both tables. What is done to the other table runs its triggers, defaults, domains and policies with the
-- rights of ftstream's functions: a stranger's must not.
create or replace view ftstream.foreign_keys with (security_invoker = true) as
select f.conname::text as name, f.conrelid as child, f.confrelid as parent,
       case when f.confdeltype = 'n' and k.fixed then 'a' else f.confdeltype end::"char" as on_delete,
       n.nspname || '.' || r.relname as parent_name,
       k.child_columns, k.parent_columns, k.child_texts, k.present, k.to_null, k.to_default, k.names,
       k.child_names, coalesce(k.nulls, '{}') as nulls, r.relowner = o.relowner as trusted
from pg_catalog.pg_constraint f
join pg_catalog.pg_class r on r.oid = f.confrelid
join pg_catalog.pg_class o on o.oid = f.conrelid
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

-- The primary key of a table and its type; null where it has several columns.
create or replace function ftstream.key_of(target regclass, out name text, out type text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select a.attname, format_type(a.atttypid, null) from pg_catalog.pg_index i
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = target and i.indisprimary and i.indnkeyatts = 1
$$;
revoke all on function ftstream.key_of(regclass) from public;

-- Aborts unless `init` has put one of ftstream's triggers on the table: nobody else may make one. That is what
-- require_parents, missing_parents and release_children may be asked of.
create or replace function ftstream.require_in_flow(target regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_trigger t where t.tgrelid = target and t.tgfoid in (
        'ftstream.capture()'::regprocedure, 'ftstream.refuse_edit()'::regprocedure)) then
        raise exception '% is no table of a flow', target using errcode = 'insufficient_privilege';
    end if;
end $$;
revoke all on function ftstream.require_in_flow(regclass) from public;

-- What referring, parent_image and carry_parent may touch: tables that one of the flows' tables refers to, or one of
-- those in turn, all of one owner.
create or replace function ftstream.require_referred_to(target regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (
        with recursive reached(table_id) as (
            select t.tgrelid from pg_trigger t
            where t.tgfoid in ('ftstream.capture()'::regprocedure, 'ftstream.refuse_edit()'::regprocedure)
            union select f.parent from ftstream.foreign_keys f join reached r on f.child = r.table_id where f.trusted)
        select from reached where table_id = target) then
        raise exception 'no table of a flow refers to %', target using errcode = 'insufficient_privilege',
            hint = 'What it refers to may belong to another role: its rows are not carried.';
    end if;
end $$;
revoke all on function ftstream.require_referred_to(regclass) from public;

-- Aborts where row level security may hide rows of the table from ftstream's functions: they would count as deleted.
create or replace function ftstream.require_visible(target regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if row_security_active(target) and (not exists (
        select from pg_policy p where p.polrelid = target and p.polpermissive and p.polcmd = '*'
        and current_user::regrole = any(p.polroles) and pg_get_expr(p.polqual, p.polrelid) = 'true')
        or exists (
        select from pg_policy p where p.polrelid = target and not p.polpermissive
        and exists (select from unnest(p.polroles) as r(id) where r.id = 0 or pg_has_role(r.id, 'MEMBER')))) then
        raise exception 'row level security hides rows of % from role %', target, current_user
            using errcode = 'insufficient_privilege', hint = 'Run `ftstream init`.';
    end if;
end $$;
revoke all on function ftstream.require_visible(regclass) from public;

-- Aborts with FT019 unless ftstream's functions may do this to the other table of a foreign key. To look at a table of
-- another role runs casts and functions of its owner's: a parent, which the flow's table was made to refer to, may be
-- looked at where its owner lets it be; a child, which anybody may make, never.
create or replace function ftstream.require_rights(key_name text, target regclass, trusted boolean, privileges text[]) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    lacking constant text := (
        select string_agg(p.name, ', ') from unnest(privileges) as p(name)
        where not has_table_privilege(target, p.name));
begin
    if trusted and lacking is null then
        perform ftstream.require_visible(target);
    elsif lacking is not null or row_security_active(target) then
        raise exception 'constraint %: % belongs to %, and role % may not look at it',
            key_name, target, (select c.relowner::regrole from pg_class c where c.oid = target), current_user
            using errcode = 'FT019',
                  hint = case when trusted then 'Run `ftstream init`.'
                              else format('GRANT %s ON %s TO %I, or drop the constraint.',
                                          array_to_string(privileges, ', '), target, current_user) end;
    end if;
end $$;
revoke all on function ftstream.require_rights(text, regclass, boolean, text[]) from public;

-- Aborts with FT005 unless all that these rows refer to is here; what is, stays until the transaction ends.
-- The detail lists what is missing, and the columns that refer to it and may be null.
create or replace function ftstream.require_parents(child_table regclass, ids text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    key     record;
    fk      record;
    found   jsonb;
    missing jsonb := '[]';
begin
    perform ftstream.require_in_flow(child_table);
    select * into key from ftstream.key_of(child_table);
    for fk in select * from ftstream.foreign_keys f where f.child = child_table order by f.name loop
        perform ftstream.require_rights(fk.name, fk.parent, fk.trusted, '{SELECT,UPDATE}');
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
revoke all on function ftstream.require_parents(regclass, text[]) from public;

-- What a row of this image refers to that is not here, as require_parents lists it.
create or replace function ftstream.missing_parents(child_table regclass, image jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    key     record;
    fk      record;
    wanted  text[];
    there   boolean;
    missing jsonb := '[]';
begin
    perform ftstream.require_in_flow(child_table);
    select * into key from ftstream.key_of(child_table);
    for fk in select * from ftstream.foreign_keys f where f.child = child_table order by f.name loop
        wanted := array(select image ->> c.name from unnest(fk.child_names) with ordinality as c(name, n) order by c.n);
        continue when array_position(wanted, null) is not null;
        perform ftstream.require_rights(fk.name, fk.parent, fk.trusted, '{SELECT}');
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
-- the detail lists who refers to what. Aborts with FT019 where a table of another role would have to let go.
create or replace function ftstream.release_children(
    parent_table regclass, ids text[], carried regclass[], rewritten text[] default '{}'
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform ftstream.require_in_flow(parent_table);
    perform ftstream.release(parent_table, ids, carried, rewritten);
end $$;
revoke all on function ftstream.release_children(regclass, text[], regclass[], text[]) from public;

-- The same of any table that release_children has come to.
create or replace function ftstream.release(
    parent_table regclass, ids text[], carried regclass[], rewritten text[] default '{}'
) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
        if fk.child = any(carried) and fk.on_delete not in ('a', 'r') then
            continue;
        end if;
        if not fk.trusted then
            raise exception 'constraint % has % refer to rows of % that are to be deleted: that belongs to %',
                fk.name, fk.child::regclass, parent_table,
                (select c.relowner::regrole from pg_class c where c.oid = fk.child)
                using errcode = 'FT019', hint = 'Delete them there by hand, or drop the constraint.';
        end if;
        perform ftstream.require_rights(fk.name, fk.child, fk.trusted, case fk.on_delete
            when 'a' then '{SELECT}' when 'r' then '{SELECT}'
            when 'c' then '{SELECT,DELETE}' else '{SELECT,UPDATE}' end::text[]);
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
        elsif fk.on_delete = 'c' then
            select * into child_key from ftstream.key_of(fk.child);
            if child_key.name is not null then
                execute format('select array_agg(c.%I::text) from %s c where %s', child_key.name, fk.child::regclass, condition)
                    into children using ids;
                perform ftstream.release(fk.child::regclass, children, carried);
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
revoke all on function ftstream.release(regclass, text[], regclass[], text[]) from public;

-- The tables with rows that refer to this one, whatever their foreign keys say, and how many.
create or replace function ftstream.referring(target regclass, entity text) returns table (child text, rows bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    key record;
    fk  record;
begin
    perform ftstream.require_referred_to(target);
    select * into key from ftstream.key_of(target);
    for fk in select * from ftstream.foreign_keys f where f.parent = target and f.trusted order by f.name loop
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

-- A row that some captured or guarded table refers to, as an image; null if there is none.
create or replace function ftstream.parent_image(parent_table regclass, columns text[], key text[]) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = '1' set bytea_output = 'hex' as $$
declare
    image jsonb;
begin
    perform ftstream.require_referred_to(parent_table);
    perform ftstream.require_visible(parent_table);
    execute format('select to_jsonb(p) from %s p where array[%s] = $1', parent_table, (
        select string_agg(format('p.%I::text', c.name), ', ' order by c.n) from unnest(columns) with ordinality as c(name, n)))
        into image using key;
    return image;
end $$;
revoke all on function ftstream.parent_image(regclass, text[], text[]) from public;

-- Puts a row here that others refer to and that no flow carries, if nothing is in its way.
create or replace function ftstream.carry_parent(parent_table regclass, image jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    columns text;
    done    integer;
begin
    perform ftstream.require_referred_to(parent_table);
    select string_agg(quote_ident(a.attname), ', ') into columns from pg_catalog.pg_attribute a
    where a.attrelid = parent_table and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
      and image ? a.attname::text;
    execute format('insert into %1$s (%2$s) overriding system value'
                   ' select %2$s from jsonb_populate_record(null::%1$s, $1) on conflict do nothing',
                   parent_table, columns) using image;
    get diagnostics done = row_count;
    return done = 1;
end $$;
revoke all on function ftstream.carry_parent(regclass, jsonb) from public;

-- The guard that refuses edits of tables that the other site owns (guidelines 5.1). Arguments: the flow and the site
-- that owns its tables. Fires for every writer, in the replica role too (ENABLE ALWAYS); the trigger's WHEN lets only
-- ftstream's own transactions by. A trigger fires without EXECUTE: nobody needs that but who makes one.
create or replace function ftstream.refuse_edit() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '%.% belongs to flow %, which % owns: % is refused here',
        tg_table_schema, tg_table_name, tg_argv[0], tg_argv[1], lower(tg_op)
        using errcode = 'object_not_in_prerequisite_state',
              hint = format('Edit %I.%I on %s; flow %s carries the change here.',
                            tg_table_schema, tg_table_name, tg_argv[1], tg_argv[0]);
end $$;
revoke all on function ftstream.refuse_edit() from public;

-- Makes the log's partitions for the coming days and drops those past their time. They are made ahead, so that the
-- default one stays empty; what it has after days without a worker goes to partitions of its own.
create or replace function ftstream.maintain_sync_log(keep_days integer) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    keep constant integer := greatest(keep_days, 1);
    day  date;
    name text;
begin
    -- Two workers start at once: the second waits, and finds the partitions made.
    perform from ftstream.turn t where t.name = 'sync_log' for update;
    for day in
        select d::date from generate_series(current_date, current_date + 7, interval '1 day') d
        union select distinct l.logged_at::date from ftstream.sync_log_default l order by 1
    loop
        name := 'sync_log_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass('ftstream.' || name) is not null;
        execute format('create table ftstream.%I (like ftstream.sync_log including defaults)', name);
        execute format('alter table ftstream.%I enable row level security', name);
        execute format('with moved as (delete from ftstream.sync_log_default where logged_at >= %L and logged_at < %L returning *)'
                       ' insert into ftstream.%I select * from moved', day::timestamptz, (day + 1)::timestamptz, name);
        execute format('alter table ftstream.sync_log attach partition ftstream.%I for values from (%L) to (%L)',
                       name, day::timestamptz, (day + 1)::timestamptz);
    end loop;
    for name in
        select c.relname from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'ftstream.sync_log'::regclass
          and c.relname ~ '^sync_log_[0-9]{8}$'
          and to_date(right(c.relname, 8), 'YYYYMMDD') < current_date - keep
    loop
        execute format('drop table ftstream.%I', name);
    end loop;
    delete from ftstream.displaced where displaced_at < now() - make_interval(days => keep);
end $$;
revoke all on function ftstream.maintain_sync_log(integer) from public;

-- The partitions of the coming days; this drops none.
select ftstream.maintain_sync_log(36500);
