-- What people edit in the demo, on both sites at once.

-- name: add_player
-- A player that editors write about; the traffic leaves it alone.
insert into gfx_players (id, player_hash, name) values (%(player)s, md5('edited'), 'Kim') on conflict do nothing

-- name: add_session
-- A broadcast, which no flow carries.
insert into broadcast_sessions (id, session_code, event_name, broadcast_date, scheduled_start, created_by)
values (%(session)s, 'DEMO', 'Demo', current_date, now(), 'demo') on conflict do nothing

-- name: has_player
-- Whether it has come.
select exists (select from gfx_players where id = %(player)s)

-- name: author
-- Whose edit it is.
select set_config('ftstream.author', %(author)s, true)

-- name: edit_override
-- Somebody overrides what the graphics show of a player.
insert into player_overrides (id, gfx_player_id, field_name, override_value, reason, created_by)
values (%(id)s, %(player)s, 'name', %(text)s, 'demo', %(author)s)
on conflict (id) do update set override_value = excluded.override_value

-- name: delete_override
-- Somebody takes an override away.
delete from player_overrides where id = %(id)s

-- name: edit_sheet
-- Somebody writes on a cue sheet.
insert into cue_sheets (id, sheet_code, session_id, sheet_name, sheet_order, created_by)
values (%(id)s::uuid, %(id)s::text, %(session)s, %(text)s, %(place)s, %(author)s)
on conflict (id) do update set notes = excluded.sheet_name, last_modified_by = excluded.created_by

-- name: queue_render
-- A graphics operator orders a render.
insert into render_queue (id, render_type, aep_project, aep_comp_name, gfx_data)
values (%(id)s, 'chip_count', 'demo.aep', 'chips', '{"player": "Kim"}')

-- name: render
-- The renderer says how far it is.
update render_queue set status = %(status)s, progress = %(progress)s where id = %(id)s

-- name: rendered
-- How far External knows it to be.
select status::text from render_queue where id = %(id)s

-- name: edit_render
-- What External may not do.
update render_queue set priority = 1

-- name: edit_hand
-- What Supabase may not do.
update gfx_hands set description = 'edited'

-- name: conflicted
-- A row over which both sites were in conflict, if there is one.
select entity_id from ftstream.sync_log
where outcome::text like 'conflict%%' and table_name = 'player_overrides' and change->'row' <> 'null'
order by logged_at desc limit 1
