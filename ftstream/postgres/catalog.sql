-- name: columns
-- The columns of a table, in order, with what decoding needs to know of their types.
with recursive typed as (
    select a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated, a.attidentity,
           a.attstorage, a.attndims::integer as dimensions, a.atttypid as base, a.atttypmod as base_typmod
    from pg_attribute a
    where a.attrelid = to_regclass(%(table)s) and a.attnum > 0 and not a.attisdropped
    union all
    select d.attnum, d.attname, d.atttypid, d.atttypmod, d.attnotnull, d.attgenerated, d.attidentity,
           d.attstorage, greatest(d.dimensions, t.typndims), t.typbasetype,
           case when d.base_typmod >= 0 then d.base_typmod else t.typtypmod end
    from typed d join pg_type t on t.oid = d.base and t.typtype = 'd'
)
select d.attname as name,
       format_type(d.atttypid, d.atttypmod) as type,
       format_type(d.base, -1) as cast_type,
       coalesce(e.typname, t.typname) as base_name,
       coalesce(e.typtype, t.typtype)::text as base_kind,
       e.oid is not null as is_array,
       d.dimensions,
       d.base <> d.atttypid as domain,
       format_type(d.base, d.base_typmod) as base_type,
       d.base_typmod as modifier,
       coalesce(e.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace as builtin,
       d.base_typmod >= 0 as constrained,
       d.attgenerated <> '' as generated,
       d.attidentity = 'a' as identity,
       d.attstorage <> 'p' as toastable,
       coalesce((select q.seqincrement from pg_depend o join pg_sequence q on q.seqrelid = o.objid
                 where o.classid = 'pg_class'::regclass and o.refclassid = 'pg_class'::regclass
                   and o.refobjid = to_regclass(%(table)s) and o.refobjsubid = d.attnum
                   and o.deptype in ('a', 'i') limit 1), 0) as step
from typed d
join pg_type t on t.oid = d.base and t.typtype <> 'd'
left join pg_type e on e.typarray = t.oid and t.typcategory = 'A'
order by d.attnum

-- name: unique_keys
-- The column lists of a table's unique indexes besides the primary key, partial and expression ones left out.
select array_agg(a.attname::text order by k.ordinality) as columns
from pg_index i
cross join lateral unnest(i.indkey) with ordinality as k(attnum, ordinality)
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = to_regclass(%(table)s) and i.indisunique and not i.indisprimary
  and i.indpred is null and i.indexprs is null and k.ordinality <= i.indnkeyatts
group by i.indexrelid
order by i.indexrelid

-- name: fingerprint
-- A table, and its partitions: each change of the columns gives its row another xmin. (pg_partition_tree() would
-- wait for whoever has locked the table.)
with recursive tree as (
    select to_regclass(%(table)s)::oid as oid
    union select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid
)
select c.oid, c.xmin::text from pg_class c join tree using (oid) order by c.oid

-- name: keyless
-- Of a table and its partitions those whose log does not hold the key of a row that is deleted.
with recursive tree as (
    select to_regclass(%(table)s)::oid as oid
    union select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid
)
select c.oid::regclass::text, c.relreplident::text from pg_class c join tree using (oid)
where c.relkind = 'r' and c.relreplident <> 'f' and not exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
    where i.indrelid = c.oid and a.attname = %(key)s
      and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end)
order by 1
