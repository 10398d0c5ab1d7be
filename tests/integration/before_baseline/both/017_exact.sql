-- Values are carried exactly or not at all, and what a statement was made for is what it meets.

-- Fails with the column and the value, which the column's type would round, cut or write otherwise.
create function ftstream.inexact(place text, type text, value text) returns text
language plpgsql set search_path = '' as $$
begin
    raise exception '%: % cannot hold % exactly', place, type, pg_catalog.left(value, 100) using errcode = 'FT017';
end $$;
revoke all on function ftstream.inexact(text, text, text) from public;

-- Fails if one of these tables is not as it was seen: each change of its columns writes its row in pg_class,
-- or it is another table under the name. Called once a transaction has written, when nobody can alter them.
create function ftstream.require_unchanged(tables oid[], seen text[]) returns void
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

-- Fails if the table's columns would hold anything else than this image says, for those who write it by
-- jsonb_populate_record: that rounds and cuts. A value that another type spells otherwise is the same.
create function ftstream.require_exact(target regclass, image jsonb) returns void
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
