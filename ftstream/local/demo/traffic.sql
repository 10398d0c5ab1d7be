-- The statements of the traffic. Those that return a row return one number: the rows changed,
-- counted where the database changes rows by itself.

-- name: seed_was_used
-- Whether this session is here already, from an earlier run of the same seed.
select exists (select from gfx_sessions where session_id = %(session_id)s)
    or exists (select from gfx_hands where session_id = %(session_id)s);

-- name: upsert_player
-- A player sits down: new, or seen again. The id stays that of the row that is there.
insert into gfx_players
    (id, player_hash, name, long_name, total_hands_played, total_sessions, first_seen_at,
     last_seen_at)
values
    (%(id)s, %(player_hash)s, %(name)s, %(long_name)s, 1, %(total_sessions)s, %(seen_at)s,
     %(seen_at)s)
on conflict (player_hash) do update
set name               = excluded.name,
    long_name          = excluded.long_name,
    total_hands_played = gfx_players.total_hands_played + 1,
    last_seen_at       = excluded.last_seen_at;

-- name: rename_player
-- Correct a name, and with it the hash, unless another player has that hash.
update gfx_players
set player_hash = %(player_hash)s, name = %(name)s, last_seen_at = %(seen_at)s
where player_hash = %(old_hash)s
  and (%(old_hash)s = %(player_hash)s::text
       or not exists (select from gfx_players where player_hash = %(player_hash)s));

-- name: move_player_hash
-- Give a player another's hash and names; run three times, by way of a hash nobody has.
update gfx_players
set player_hash = %(player_hash)s, name = %(name)s, long_name = %(long_name)s
where player_hash = %(old_hash)s;

-- name: lock_player
-- Keep new references to a player out, so that the next statement sees all there are.
select 0 from (select from gfx_players where player_hash = %(player_hash)s for update) as locked;

-- name: delete_player
-- Delete a player nobody on External refers to but seats, which the foreign key sets to null.
with gone as (
    delete from gfx_players p
    where p.player_hash = %(player_hash)s
      and not exists (select from player_overrides o where o.gfx_player_id = p.id)
      and not exists (select from profile_images i where i.gfx_player_id = p.id)
    returning p.id
)
select (select count(*) from gone)
     + (select count(*) from gfx_hand_players where player_id in (select id from gone));

-- name: upsert_session
-- A session's file is imported. The id sent wins, so importing again changes the primary key.
insert into gfx_sessions
    (id, session_id, file_name, file_hash, nas_path, table_type, event_title, software_version,
     payouts, hand_count, session_created_at, session_start_time, raw_json, sync_status,
     sync_error, processed_at, grade_summary, avg_hand_duration, import_status, import_errors)
values
    (%(id)s, %(session_id)s, %(file_name)s, %(file_hash)s, %(nas_path)s, %(table_type)s,
     %(event_title)s, %(software_version)s, %(payouts)s, %(hand_count)s, %(session_created_at)s,
     %(session_start_time)s, %(raw_json)s, %(sync_status)s, %(sync_error)s, %(processed_at)s,
     %(grade_summary)s, %(avg_hand_duration)s, %(import_status)s, %(import_errors)s)
on conflict (session_id) do update
set id                 = excluded.id,
    file_name          = excluded.file_name,
    file_hash          = excluded.file_hash,
    nas_path           = excluded.nas_path,
    table_type         = excluded.table_type,
    event_title        = excluded.event_title,
    software_version   = excluded.software_version,
    payouts            = excluded.payouts,
    hand_count         = excluded.hand_count,
    session_created_at = excluded.session_created_at,
    session_start_time = excluded.session_start_time,
    raw_json           = excluded.raw_json,
    sync_status        = excluded.sync_status,
    sync_error         = excluded.sync_error,
    processed_at       = excluded.processed_at,
    grade_summary      = excluded.grade_summary,
    avg_hand_duration  = excluded.avg_hand_duration,
    import_status      = excluded.import_status,
    import_errors      = excluded.import_errors;

-- name: replace_export
-- The file has grown: only what comes from it changes.
update gfx_sessions
set raw_json = %(raw_json)s, file_hash = %(file_hash)s, hand_count = %(hand_count)s,
    sync_status = 'updated'
where session_id = %(session_id)s;

-- name: rekey_session
-- Change the primary key and nothing else: the log carries no value for raw_json.
update gfx_sessions set id = %(id)s where session_id = %(session_id)s;

-- name: correct_session
-- Correct what people and the importer note about a session, leaving raw_json alone.
update gfx_sessions
set event_title  = %(event_title)s,
    nas_path     = %(nas_path)s,
    sync_status  = %(sync_status)s,
    sync_error   = %(sync_error)s,
    payouts      = %(payouts)s,
    processed_at = %(processed_at)s
where session_id = %(session_id)s;

-- name: move_file
-- Give a session another's file; run three times, by way of a hash nobody has.
update gfx_sessions set file_hash = %(file_hash)s, file_name = %(file_name)s
where session_id = %(session_id)s;

-- name: delete_session
-- Delete a session; its hands stay.
delete from gfx_sessions where session_id = %(session_id)s;

-- name: recompute_totals
-- What the importer runs once hands are in: derived columns only.
select recompute_session_totals(%(session_id)s);

-- name: upsert_hand
-- A hand is imported; one that comes under a number already there overwrites all but the id.
insert into gfx_hands
    (id, session_id, hand_num, game_variant, game_class, bet_structure, duration_seconds,
     start_time, recording_offset_iso, recording_offset_seconds, num_boards, run_it_num_times,
     ante_amt, bomb_pot_amt, description, blinds, stud_limits, pot_size, player_count,
     showdown_count, board_cards, winner_name, winner_seat, grade, is_premium, is_showdown,
     grade_factors, flop_cards, turn_card, river_card, winning_hand, winning_hand_rank,
     winning_rank_value)
values
    (%(id)s, %(session_id)s, %(hand_num)s, %(game_variant)s, %(game_class)s, %(bet_structure)s,
     %(duration_seconds)s, %(start_time)s, %(recording_offset_iso)s,
     %(recording_offset_seconds)s, %(num_boards)s, %(run_it_num_times)s, %(ante_amt)s,
     %(bomb_pot_amt)s, %(description)s, %(blinds)s, %(stud_limits)s, %(pot_size)s,
     %(player_count)s, %(showdown_count)s, %(board_cards)s, %(winner_name)s, %(winner_seat)s,
     %(grade)s, %(is_premium)s, %(is_showdown)s, %(grade_factors)s, %(flop_cards)s,
     %(turn_card)s, %(river_card)s, %(winning_hand)s, %(winning_hand_rank)s,
     %(winning_rank_value)s)
on conflict (session_id, hand_num) do update
set game_variant             = excluded.game_variant,
    game_class               = excluded.game_class,
    bet_structure            = excluded.bet_structure,
    duration_seconds         = excluded.duration_seconds,
    start_time               = excluded.start_time,
    recording_offset_iso     = excluded.recording_offset_iso,
    recording_offset_seconds = excluded.recording_offset_seconds,
    num_boards               = excluded.num_boards,
    run_it_num_times         = excluded.run_it_num_times,
    ante_amt                 = excluded.ante_amt,
    bomb_pot_amt             = excluded.bomb_pot_amt,
    description              = excluded.description,
    blinds                   = excluded.blinds,
    stud_limits              = excluded.stud_limits,
    pot_size                 = excluded.pot_size,
    player_count             = excluded.player_count,
    showdown_count           = excluded.showdown_count,
    board_cards              = excluded.board_cards,
    winner_name              = excluded.winner_name,
    winner_seat              = excluded.winner_seat,
    grade                    = excluded.grade,
    is_premium               = excluded.is_premium,
    is_showdown              = excluded.is_showdown,
    grade_factors            = excluded.grade_factors,
    flop_cards               = excluded.flop_cards,
    turn_card                = excluded.turn_card,
    river_card               = excluded.river_card,
    winning_hand             = excluded.winning_hand,
    winning_hand_rank        = excluded.winning_hand_rank,
    winning_rank_value       = excluded.winning_rank_value;

-- name: correct_hand
-- Correct the outcome and the grade of a hand.
update gfx_hands
set description        = %(description)s,
    pot_size           = %(pot_size)s,
    board_cards        = %(board_cards)s,
    winner_name        = %(winner_name)s,
    winner_seat        = %(winner_seat)s,
    grade              = %(grade)s,
    is_premium         = %(is_premium)s,
    is_showdown        = %(is_showdown)s,
    grade_factors      = %(grade_factors)s,
    flop_cards         = %(flop_cards)s,
    turn_card          = %(turn_card)s,
    river_card         = %(river_card)s,
    winning_hand       = %(winning_hand)s,
    winning_hand_rank  = %(winning_hand_rank)s,
    winning_rank_value = %(winning_rank_value)s
where id = %(id)s;

-- name: delete_hand
-- Delete a hand and, by cascade, its seats.
with gone as (delete from gfx_hands where id = %(id)s returning id)
select (select count(*) from gone)
     + (select count(*) from gfx_hand_players where hand_id in (select id from gone));

-- name: set_hand_nums_aside
-- Free the numbers of hands that are about to pass them round.
update gfx_hands set hand_num = -hand_num where id = any (%(ids)s);

-- name: number_hand
-- Give a hand its number.
update gfx_hands set hand_num = %(hand_num)s where id = %(id)s;

-- name: clear_seats
-- Empty the table of a hand before its seats are written.
delete from gfx_hand_players where hand_id = %(hand_id)s;

-- name: insert_seat
-- Seat a player, by hash; one the database does not know leaves player_id null.
insert into gfx_hand_players
    (id, hand_id, player_id, seat_num, player_name, hole_cards, has_shown, start_stack_amt,
     end_stack_amt, cumulative_winnings_amt, blind_bet_straddle_amt, sitting_out,
     elimination_rank, is_winner, vpip_percent, preflop_raise_percent,
     aggression_frequency_percent, went_to_showdown_percent, hole_cards_normalized, hole_card_1,
     hole_card_2, hole_card_3, hole_card_4, hand_description, hand_rank, rank_value, won_amount,
     total_bet_amount, is_eliminated)
values
    (%(id)s, %(hand_id)s, (select id from gfx_players where player_hash = %(player_hash)s),
     %(seat_num)s, %(player_name)s, %(hole_cards)s, %(has_shown)s, %(start_stack_amt)s,
     %(end_stack_amt)s, %(cumulative_winnings_amt)s, %(blind_bet_straddle_amt)s,
     %(sitting_out)s, %(elimination_rank)s, %(is_winner)s, %(vpip_percent)s,
     %(preflop_raise_percent)s, %(aggression_frequency_percent)s,
     %(went_to_showdown_percent)s, %(hole_cards_normalized)s, %(hole_card_1)s, %(hole_card_2)s,
     %(hole_card_3)s, %(hole_card_4)s, %(hand_description)s, %(hand_rank)s, %(rank_value)s,
     %(won_amount)s, %(total_bet_amount)s, %(is_eliminated)s);

-- name: correct_seat
-- Correct what a seat held and won.
update gfx_hand_players
set hole_cards       = %(hole_cards)s,
    has_shown        = %(has_shown)s,
    end_stack_amt    = %(end_stack_amt)s,
    vpip_percent     = %(vpip_percent)s,
    hand_description = %(hand_description)s,
    won_amount       = %(won_amount)s,
    player_name      = %(player_name)s
where id = %(id)s;

-- name: move_seat
-- Move a row to a seat.
update gfx_hand_players set seat_num = %(seat_num)s where id = %(id)s;

-- name: delete_seats
-- Delete rows of seats that are about to come again.
delete from gfx_hand_players where id = any (%(ids)s);
