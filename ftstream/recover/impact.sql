-- What was written in a time, as a site has received it.

-- name: impact
-- By table, author, operation and outcome: how many changes of how many rows, from when to when, and the ids of the
-- rows that were written last. Partitions of the log from long before are left out: nothing is received a day before
-- it was written, whatever the clocks say. What became of a parked change has a row of its own.
with written as (
    select l.table_name, l.entity_id, coalesce(l.change ->> 'author', '') as author,
           coalesce(l.operation::text, '') as operation, l.outcome::text as outcome,
           coalesce(l.source_time, l.logged_at) as at
    from ftstream.sync_log l
    where l.logged_at >= %(since)s::timestamptz - interval '1 day'
      and coalesce(l.source_time, l.logged_at) >= %(since)s and coalesce(l.source_time, l.logged_at) < %(until)s
      and l.table_name = any(%(tables)s::text[]) and l.outcome not in ('parked', 'run_done', 'run_failed')
), entities as (
    select w.table_name, w.author, w.operation, w.outcome, w.entity_id, count(*) as changes, min(w.at) as first,
           max(w.at) as last,
           row_number() over (partition by w.table_name, w.author, w.operation, w.outcome order by max(w.at) desc) as place
    from written w group by 1, 2, 3, 4, 5
)
select e.table_name, e.author, e.operation, e.outcome, sum(e.changes)::bigint as changes, count(*) as rows,
       min(e.first) as first, max(e.last) as last,
       array_agg(e.entity_id order by e.place) filter (where e.place <= %(ids)s) as ids
from entities e group by 1, 2, 3, 4 order by 5 desc, 1, 2, 3, 4
