-- name: hands
-- Rows of gfx_hands as an importer writes them; 35 columns, about 1 KB as JSON.
insert into gfx_hands
    (session_id, hand_num, game_variant, duration_seconds, start_time, recording_offset_iso,
     recording_offset_seconds, description, blinds, pot_size, player_count, showdown_count, board_cards,
     winner_name, winner_seat, grade, is_premium, is_showdown, grade_factors, flop_cards, turn_card,
     river_card, winning_hand, winning_hand_rank, winning_rank_value)
select 638961999170907267, i, 'HOLDEM', i %% 300, now(), 'P739538DT16H3M20.9005907S',
       63889142600 + i, 'hand ' || i, '{"ante_type": "BB_ANTE", "big_blind_amt": 20000, "level": 12}',
       i * 1000, 6 + i %% 3, i %% 4, array['as', 'kd', '7h', '2c', 'td'], 'Player ' || i %% 50, i %% 9,
       (array['A', 'B', 'C', 'D', 'F'])[1 + i %% 5], i %% 7 = 0, i %% 3 = 0,
       '{"pot": 20.00, "players": 3}', '["as", "kd", "7h"]', '2c', 'td', 'two pair', 'TWO_PAIR', 2467
from generate_series(1, %(rows)s) i

-- name: narrow_hands
-- The same in 15 columns.
insert into gfx_hands
    (session_id, hand_num, game_variant, duration_seconds, start_time, description, blinds, pot_size,
     player_count, board_cards, winner_name, winner_seat)
select 638961999170907267, i, 'HOLDEM', i %% 300, now(), 'hand ' || i,
       '{"ante_type": "BB_ANTE", "big_blind_amt": 20000, "level": 12}', i * 1000, 6 + i %% 3,
       array['as', 'kd', '7h', '2c', 'td'], 'Player ' || i %% 50, i %% 9
from generate_series(1, %(rows)s) i

-- name: narrow
-- Leaves gfx_hands 15 columns.
alter table gfx_hands
    drop column game_class, drop column bet_structure, drop column recording_offset_iso,
    drop column recording_offset_seconds, drop column num_boards, drop column run_it_num_times,
    drop column ante_amt, drop column bomb_pot_amt, drop column stud_limits, drop column showdown_count,
    drop column grade, drop column is_premium, drop column is_showdown, drop column grade_factors,
    drop column flop_cards, drop column turn_card, drop column river_card, drop column winning_hand,
    drop column winning_hand_rank, drop column winning_rank_value

-- name: sessions
-- Sessions with raw_json of about 1 MB that compresses as badly as real exports do.
insert into gfx_sessions (session_id, file_name, file_hash, raw_json)
select 638961999170907267 + i, 'PGFX_live_' || i || '.json', md5(i::text),
       jsonb_build_object('ID', 638961999170907267 + i, 'Hands', hands.list)
from generate_series(1, %(rows)s) i,
     lateral (select jsonb_agg(md5(i || ':' || n) || md5(n || '-' || i)) as list
              from generate_series(1, 14500) n) hands

-- name: player
-- One row, for latency.
insert into gfx_players (player_hash, name) values (md5(%(number)s::text), 'Kim')

-- name: latency
-- Milliseconds from the commit on External to the commit on Supabase, per change since a time.
select extract(epoch from pg_xact_commit_timestamp(xmin) - source_time) * 1000
from ftstream.sync_log where table_name = 'gfx_players' and source_time > to_timestamp(%(since)s)

-- name: override
-- One edit, for latency both ways.
insert into player_overrides (wsop_player_id, field_name, override_value, reason, created_by)
values (%(player)s, 'name', %(number)s::text, 'bench', 'bench')

-- name: edit_latency
-- Milliseconds from the edit on the other site to its commit on this one, per change since a time.
select extract(epoch from pg_xact_commit_timestamp(xmin) - source_time) * 1000
from ftstream.sync_log where table_name = 'player_overrides' and source_time > to_timestamp(%(since)s)

-- name: overrides
-- Many of them at once.
insert into player_overrides (wsop_player_id, field_name, override_value, reason, created_by)
select gen_random_uuid(), 'name', 'Kim ' || i, 'bench', 'bench' from generate_series(1, %(rows)s) i

-- name: update_overrides
-- Writes all of them again.
update player_overrides set override_value = override_value || '.'

-- name: applying
-- Whether what follows is ftstream's own, and not captured.
select set_config('ftstream.applying', %(applying)s, true)

-- name: outbox
-- What is not published yet.
select count(*) from ftstream.outbox

-- name: empty_outbox
-- Nobody publishes what has been written until now.
truncate ftstream.outbox

-- name: tidy
-- Each round finds the tables without the dead rows of the one before.
vacuum player_overrides, ftstream.last_write

-- name: chip_counts
-- Chip counts, of one event and a thousand players.
with event as (
    insert into wsop_events (event_id, event_name, start_date, buy_in)
    values ('E1', 'Main Event', '2026-07-02', 1000000) returning id
), players as (
    insert into wsop_players (wsop_player_id, name)
    select 'P' || n, 'Player ' || n from generate_series(1, 1000) n returning id, wsop_player_id
)
insert into wsop_chip_counts
    (event_id, player_id, table_num, seat_num, chip_count, chip_change, rank, big_blind_at_time, stack_in_bbs,
     recorded_at, level_number)
select e.id, p.id, n / 9, n %% 9, n * 100, n - 500, n, 1600, n / 16.0, now() - n * interval '1 second', n / 1000
from generate_series(1, %(rows)s) n
join players p on p.wsop_player_id = 'P' || (1 + n %% 1000), event e

-- name: one_percent
-- A hundredth of them changes, all over the table.
update wsop_chip_counts set chip_count = chip_count + 1 where rank % 100 = 0

-- name: no_run
-- No run begins until it is told to.
update ftstream.sync_status set next_sync_at = now() + interval '14 minutes' where source = 'wsop'

-- name: run_now
-- A run is due.
update ftstream.sync_status set status = 'pending', next_sync_at = now() where source = 'wsop'

-- name: running
-- Whether a table has not been run yet.
select entity_type from ftstream.sync_status where source = 'wsop' and status <> 'synced'
