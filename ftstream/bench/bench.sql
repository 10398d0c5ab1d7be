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
