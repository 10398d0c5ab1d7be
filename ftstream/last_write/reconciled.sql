-- The tables of which both sites know every row.

-- name: unreconciled
-- Those of these tables that may hold rows which the other site was never told of.
select t.name from unnest(%(tables)s::text[]) as t(name)
where not exists (select from ftstream.reconciled r where r.table_name = t.name) order by t.name

-- name: mark
-- The other site knows of every row of these tables, or is told.
insert into ftstream.reconciled (table_name, how) select unnest(%(tables)s::text[]), 'compared'
on conflict (table_name) do update set reconciled_at = now(), how = excluded.how
