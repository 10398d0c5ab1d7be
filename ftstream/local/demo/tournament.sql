-- A tournament's data on External, which goes to Supabase in batches.

-- name: events
-- Three events.
insert into wsop_events (id, event_id, event_name, start_date, buy_in, prize_pool)
select lpad(n::text, 32, '0')::uuid, 'WSOP-' || n, 'Event #' || n, date '2026-05-26' + n, 150000, 9007199254740993
from generate_series(1, 3) n

-- name: players
-- Sixty players.
insert into wsop_players (id, wsop_player_id, name, country_code)
select lpad((100 + n)::text, 32, '0')::uuid, 'P-' || n, 'Player ' || n, 'KR' from generate_series(1, 60) n

-- name: counts
-- Each one's chips, ten times.
insert into wsop_chip_counts (event_id, player_id, chip_count, recorded_at, level_number)
select lpad((1 + n %% 3)::text, 32, '0')::uuid, lpad((101 + n %% 60)::text, 32, '0')::uuid,
       60000, now(), 1 + n / 60
from generate_series(0, %(rows)s - 1) n

-- name: chips_move
-- Chips go from one to another: updates of a table without updated_at.
update wsop_chip_counts set chip_count = (random() * 120000)::bigint
where id in (select id from wsop_chip_counts order by random() limit 20)

-- name: count_comes
-- A new count.
insert into wsop_chip_counts (event_id, player_id, chip_count, recorded_at, level_number)
select event_id, player_id, chip_count, now(), 1 + (random() * 9)::int from wsop_chip_counts order by random() limit 1

-- name: count_goes
-- A count that was recorded twice is taken out.
delete from wsop_chip_counts where id = (select id from wsop_chip_counts order by random() limit 1)

-- name: day_goes
-- A whole level is taken out at once.
delete from wsop_chip_counts where level_number = 1

-- name: runs
-- Runs that are done, rows that they have published, and those that are deleted by them.
select count(distinct source_time), coalesce(sum((details ->> 'published')::int), 0)::int,
       coalesce(sum((details ->> 'deleted')::int), 0)::int
from ftstream.sync_log where outcome = 'run_done'
