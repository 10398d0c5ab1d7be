-- What goes wrong in the demo.

-- name: swap_seats
-- Two players of a hand change seats, by way of a seat that is none of theirs.
with hand as (
    insert into gfx_hands (session_id, hand_num, start_time) values (-1, 1, now()) returning id
), seats as (
    insert into gfx_hand_players (hand_id, seat_num, player_name)
    select id, n, 'Player ' || n from hand, generate_series(1, 2) n returning id
)
select count(*) from seats;
update gfx_hand_players set seat_num = 10 where seat_num = 1
    and hand_id = (select id from gfx_hands where session_id = -1);
update gfx_hand_players set seat_num = 1 where seat_num = 2
    and hand_id = (select id from gfx_hands where session_id = -1);
update gfx_hand_players set seat_num = 2 where seat_num = 10
    and hand_id = (select id from gfx_hands where session_id = -1)

-- name: add_odd_player
-- A player that Supabase's constraint does not let in.
insert into gfx_players (player_hash, name) values (md5('odd'), 'An odd player')

-- name: forbid_odd_players
-- A constraint that External does not have.
alter table gfx_players add constraint no_odd_players check (name not like 'An odd%')

-- name: allow_odd_players
-- The fix.
alter table gfx_players drop constraint no_odd_players
