-- The demonstration schema: the production tables ftstream syncs, with everything around them
-- that gets in the way. Both sites load this same file, in one transaction, as the owner of
-- the database (a superuser on External, an ordinary role with CREATEROLE on Supabase).

set local search_path = public;

-- ------------------------------------------------------------------------------------------
-- Roles. Supabase brings them; elsewhere they are made, so that the policies below can be.
-- ------------------------------------------------------------------------------------------

do $$
declare
    wanted name;
begin
    foreach wanted in array array['authenticated', 'service_role']::name[] loop
        continue when exists (select from pg_roles where rolname = wanted);
        begin
            execute format('create role %I nologin', wanted);
        exception
            -- Roles belong to the cluster: another database, loading this file at the same
            -- moment, was first.
            when duplicate_object or unique_violation then null;
        end;
    end loop;
end
$$;

-- ------------------------------------------------------------------------------------------
-- Enums of the synced tables
-- ------------------------------------------------------------------------------------------

create type table_type as enum (
    'FEATURE_TABLE', 'MAIN_TABLE', 'FINAL_TABLE', 'SIDE_TABLE', 'UNKNOWN');
create type game_variant as enum (
    'HOLDEM', 'OMAHA', 'OMAHA_HILO', 'STUD', 'STUD_HILO', 'RAZZ', 'DRAW', 'MIXED');
create type game_class as enum ('FLOP', 'STUD', 'DRAW', 'MIXED');
create type bet_structure as enum ('NOLIMIT', 'POTLIMIT', 'LIMIT', 'SPREAD_LIMIT');
create type gfx_sync_status as enum ('pending', 'synced', 'updated', 'failed', 'archived');
create type wsop_event_type as enum (
    'MAIN_EVENT', 'BRACELET_EVENT', 'SIDE_EVENT', 'SATELLITE', 'DEEPSTACK', 'MYSTERY_BOUNTY',
    'HIGH_ROLLER', 'SENIOR', 'LADIES', 'OTHER');
create type wsop_event_status as enum (
    'upcoming', 'registration', 'running', 'day_break', 'final_table', 'heads_up', 'completed',
    'cancelled');
create type wsop_chip_source as enum ('import', 'manual', 'realtime', 'snapshot');
create type manual_override_field as enum (
    'name', 'name_korean', 'name_display', 'country_code', 'country_name', 'profile_image_url',
    'bio', 'notable_wins', 'social_links');
create type manual_image_type as enum (
    'profile', 'thumbnail', 'broadcast', 'headshot', 'action', 'flag_overlay');
create type cue_sheet_type as enum (
    'pre_show', 'main_show', 'segment', 'break', 'post_show', 'highlight', 'emergency');
create type cue_sheet_status as enum (
    'draft', 'pending_review', 'approved', 'ready', 'active', 'paused', 'completed', 'archived');
create type orch_render_type as enum (
    'chip_count', 'leaderboard', 'player_info', 'hand_replay', 'elimination', 'payout', 'custom');
create type orch_render_status as enum (
    'pending', 'queued', 'preparing', 'rendering', 'encoding', 'uploading', 'completed', 'failed',
    'cancelled');

-- Enums of the tables around them
create type manual_audit_action as enum ('CREATE', 'UPDATE', 'DELETE');
create type cue_content_type as enum (
    'chip_count', 'leaderboard', 'player_info', 'hand_replay', 'elimination', 'payout', 'custom');
create type cue_item_status as enum ('pending', 'ready', 'on_air', 'completed', 'skipped');
create type orch_job_type as enum ('import', 'render', 'export', 'cleanup');

-- ------------------------------------------------------------------------------------------
-- Parents that are not synced (cue_items comes after cue_sheets, to which it refers)
-- ------------------------------------------------------------------------------------------

create table broadcast_sessions (
    id                  uuid        not null default gen_random_uuid() primary key,
    session_code        text        not null unique,
    event_name          text        not null,
    broadcast_date      date        not null,
    scheduled_start     timestamptz not null,
    created_by          text        not null,
    total_cue_items     int         default 0,
    completed_cue_items int         default 0,
    updated_at          timestamptz default now()
);

create table job_queue (
    id         uuid          not null default gen_random_uuid() primary key,
    job_type   orch_job_type not null,
    job_name   text          not null,
    created_by text          not null
);

-- ------------------------------------------------------------------------------------------
-- gfx: what PokerGFX exports, written on External
-- ------------------------------------------------------------------------------------------

create table gfx_players (
    id                 uuid        not null default gen_random_uuid() primary key,
    player_hash        text        not null unique, -- md5 of lower(trim(name)) ':' lower(trim(long_name))
    name               text        not null,
    long_name          text        default '',
    total_hands_played int         default 0,
    total_sessions     int         default 0,
    first_seen_at      timestamptz default now(),
    last_seen_at       timestamptz default now(),
    created_at         timestamptz default now(),
    updated_at         timestamptz default now()
);

create table gfx_sessions (
    id                     uuid            not null default gen_random_uuid() primary key,
    session_id             bigint          not null unique, -- about 6.4e17, beyond a double
    file_name              text            not null,
    file_hash              text            not null unique,
    nas_path               text,
    table_type             table_type      not null default 'UNKNOWN',
    event_title            text            default '',
    software_version       text            default '',
    payouts                int[]           default '{}',
    hand_count             int             default 0,
    player_count           int             default 0,
    total_duration_seconds int             default 0,
    session_created_at     timestamptz,
    session_start_time     timestamptz,
    session_end_time       timestamptz,
    raw_json               jsonb           not null, -- the whole export, up to about 1 MB
    sync_status            gfx_sync_status default 'pending',
    sync_error             text,
    processed_at           timestamptz     default now(),
    created_at             timestamptz     default now(),
    updated_at             timestamptz     default now(),
    grade_summary          jsonb           default '{}',
    premium_hands_count    int             default 0,
    avg_hand_duration      interval,
    import_status          varchar(30)     default 'complete',
    import_errors          jsonb           default '[]'
);

-- session_id names a gfx_sessions.session_id by convention alone: without a foreign key hands
-- may come before their session and outlive it.
create table gfx_hands (
    id                       uuid          not null default gen_random_uuid() primary key,
    session_id               bigint        not null,
    hand_num                 int           not null,
    game_variant             game_variant  default 'HOLDEM',
    game_class               game_class    default 'FLOP',
    bet_structure            bet_structure default 'NOLIMIT',
    duration_seconds         int           default 0,
    start_time               timestamptz   not null,
    recording_offset_iso     text,
    recording_offset_seconds bigint, -- counted from year 1: about 6.4e10
    num_boards               int           default 1,
    run_it_num_times         int           default 1,
    ante_amt                 int           default 0,
    bomb_pot_amt             int           default 0,
    description              text          default '',
    blinds                   jsonb         default '{}',
    stud_limits              jsonb         default '{}',
    pot_size                 bigint        default 0,
    player_count             int           default 0,
    showdown_count           int           default 0,
    board_cards              text[]        default '{}',
    winner_name              text,
    winner_seat              int,
    created_at               timestamptz   default now(),
    updated_at               timestamptz   default now(),
    grade                    char(1) check (grade in ('A', 'B', 'C', 'D', 'F')),
    is_premium               boolean       default false,
    is_showdown              boolean       default false,
    grade_factors            jsonb         default '{}',
    flop_cards               jsonb,
    turn_card                varchar(3),
    river_card               varchar(3),
    winning_hand             varchar(100),
    winning_hand_rank        varchar(50),
    winning_rank_value       int,
    unique (session_id, hand_num)
);

-- No updated_at, and no index on player_id: setting it null reads the whole table.
create table gfx_hand_players (
    id                           uuid          not null default gen_random_uuid() primary key,
    hand_id                      uuid          not null references gfx_hands on delete cascade,
    player_id                    uuid          references gfx_players on delete set null,
    seat_num                     int           not null check (seat_num between 1 and 10),
    player_name                  text          not null,
    hole_cards                   text[]        default '{}',
    has_shown                    boolean       default false,
    start_stack_amt              bigint        default 0,
    end_stack_amt                bigint        default 0,
    cumulative_winnings_amt      bigint        default 0,
    blind_bet_straddle_amt       bigint        default 0,
    sitting_out                  boolean       default false,
    elimination_rank             int           default -1,
    is_winner                    boolean       default false,
    vpip_percent                 numeric(5, 2) default 0,
    preflop_raise_percent        numeric(5, 2) default 0,
    aggression_frequency_percent numeric(5, 2) default 0,
    went_to_showdown_percent     numeric(5, 2) default 0,
    created_at                   timestamptz   default now(),
    hole_cards_normalized        varchar(10),
    hole_card_1                  varchar(3),
    hole_card_2                  varchar(3),
    hole_card_3                  varchar(3),
    hole_card_4                  varchar(3),
    hand_description             varchar(100),
    hand_rank                    varchar(50),
    rank_value                   int,
    won_amount                   numeric(12, 2) default 0,
    total_bet_amount             numeric(12, 2) default 0,
    is_eliminated                boolean       default false,
    unique (hand_id, seat_num)
);

-- ------------------------------------------------------------------------------------------
-- wsop: tournaments, written on External; money is in cents
-- ------------------------------------------------------------------------------------------

create table wsop_events (
    id               uuid              not null default gen_random_uuid() primary key,
    event_id         text              not null unique,
    event_name       text              not null,
    event_number     int,
    event_type       wsop_event_type   not null default 'OTHER',
    start_date       date              not null,
    end_date         date,
    start_time       time,
    timezone         text              default 'UTC',
    buy_in           bigint            not null,
    rake             bigint            default 0,
    fee              bigint            default 0,
    total_entries    int               default 0,
    unique_entries   int               default 0,
    reentries_count  int               default 0,
    starting_chips   bigint,
    blind_structure  jsonb             default '[]',
    prize_pool       bigint            default 0,
    guaranteed_pool  bigint,
    payouts          jsonb             default '[]',
    venue            text,
    table_count      int,
    status           wsop_event_status default 'upcoming',
    description      text,
    notes            text,
    tags             text[]            default '{}',
    source_file      text,
    source_import_id uuid,
    created_at       timestamptz       default now(),
    updated_at       timestamptz       default now()
);

create table wsop_players (
    id                uuid         not null default gen_random_uuid() primary key,
    wsop_player_id    text         not null unique,
    name              text         not null,
    name_normalized   text,
    nickname          text,
    country_code      varchar(10),
    country_name      varchar(100),
    city              text,
    profile_image_url text,
    wsop_bracelets    int          default 0,
    wsop_rings        int          default 0,
    wsop_cashes       int          default 0,
    lifetime_earnings bigint       default 0,
    additional_info   jsonb        default '{}',
    source_file       text,
    source_import_id  uuid,
    first_seen_at     timestamptz  default now(),
    last_seen_at      timestamptz  default now(),
    created_at        timestamptz  default now(),
    updated_at        timestamptz  default now()
);

-- No updated_at, and nothing unique but the key.
create table wsop_chip_counts (
    id                uuid             not null default gen_random_uuid() primary key,
    event_id          uuid             not null references wsop_events on delete cascade,
    player_id         uuid             not null references wsop_players on delete cascade,
    table_num         int,
    seat_num          int,
    chip_count        bigint           not null,
    chip_change       bigint           default 0,
    rank              int,
    big_blind_at_time bigint,
    stack_in_bbs      numeric(10, 2),
    recorded_at       timestamptz      not null,
    day_number        int              default 1,
    level_number      int,
    source            wsop_chip_source default 'import',
    created_at        timestamptz      default now()
);

-- ------------------------------------------------------------------------------------------
-- Written on both sites
-- ------------------------------------------------------------------------------------------

-- wsop_player_id has no foreign key here, unlike in profile_images.
create table player_overrides (
    id             uuid                  not null default gen_random_uuid() primary key,
    wsop_player_id uuid,
    field_name     text                  not null,
    field_type     manual_override_field,
    override_value text                  not null,
    original_value text,
    reason         text                  not null,
    priority       int                   default 100,
    active         boolean               default true,
    valid_from     timestamptz,
    valid_until    timestamptz,
    created_by     text                  not null,
    approved_by    text,
    approved_at    timestamptz,
    notes          text,
    created_at     timestamptz           default now(),
    updated_at     timestamptz           default now(),
    gfx_player_id  uuid                  references gfx_players,
    check (gfx_player_id is not null or wsop_player_id is not null)
);

-- No updated_at.
create table profile_images (
    id                uuid              not null default gen_random_uuid() primary key,
    image_type        manual_image_type not null default 'profile',
    file_path         text              not null,
    file_name         text              not null,
    file_extension    varchar(20),
    file_size         int,
    mime_type         varchar(100),
    width             int,
    height            int,
    aspect_ratio      numeric(5, 2),
    original_url      text,
    alt_text          text,
    caption           text,
    is_primary        boolean           default false,
    is_approved       boolean           default true,
    processing_status varchar(50)       default 'completed',
    uploaded_by       text              not null,
    approved_by       text,
    notes             text,
    uploaded_at       timestamptz       default now(),
    created_at        timestamptz       default now(),
    wsop_player_id    uuid              references wsop_players,
    gfx_player_id     uuid              references gfx_players,
    check (gfx_player_id is not null or wsop_player_id is not null)
);

create table cue_sheets (
    id                         uuid             not null default gen_random_uuid() primary key,
    sheet_code                 text             not null unique,
    session_id                 uuid             not null references broadcast_sessions on delete cascade,
    sheet_name                 text             not null,
    sheet_type                 cue_sheet_type   not null default 'main_show',
    sheet_order                int              not null default 0,
    version                    int              default 1,
    parent_version_id          uuid             references cue_sheets,
    status                     cue_sheet_status default 'draft',
    total_items                int              default 0,
    completed_items            int              default 0,
    current_item_id            uuid,
    current_item_index         int              default 0,
    estimated_duration_minutes int,
    actual_duration_minutes    int,
    settings_override          jsonb            default '{}',
    description                text,
    notes                      text,
    created_by                 text             not null,
    last_modified_by           text,
    started_at                 timestamptz,
    completed_at               timestamptz,
    created_at                 timestamptz      default now(),
    updated_at                 timestamptz      default now(),
    unique (session_id, sheet_order)
);

create table cue_items (
    id           uuid             not null default gen_random_uuid() primary key,
    sheet_id     uuid             not null references cue_sheets on delete cascade,
    content_type cue_content_type not null,
    sort_order   int              not null default 0,
    status       cue_item_status  default 'pending',
    unique (sheet_id, sort_order)
);

-- A sheet and its items refer to each other, so this one is checked at commit.
alter table cue_sheets
    add foreign key (current_item_id) references cue_items
    on delete set null deferrable initially deferred;

-- ------------------------------------------------------------------------------------------
-- Written on Supabase
-- ------------------------------------------------------------------------------------------

create table render_queue (
    id                      uuid               not null default gen_random_uuid() primary key,
    job_id                  uuid               references job_queue on delete set null,
    cue_item_id             uuid,
    render_type             orch_render_type   not null,
    aep_project             text               not null,
    aep_comp_name           text               not null,
    gfx_data                jsonb              not null,
    data_hash               text,
    output_format           text               default 'mp4',
    output_path             text,
    output_resolution       text               default '1920x1080',
    output_frame_rate       int                default 30,
    output_codec            text               default 'h264',
    output_quality          text               default 'high',
    start_frame             int                default 0,
    end_frame               int,
    duration_seconds        numeric(10, 2),
    status                  orch_render_status default 'pending',
    progress                int                default 0,
    current_frame           int                default 0,
    total_frames            int,
    priority                int                default 100,
    queued_at               timestamptz        default now(),
    started_at              timestamptz,
    completed_at            timestamptz,
    estimated_completion    timestamptz,
    output_file_size        bigint,
    output_duration_seconds numeric(10, 2),
    render_duration_ms      int,
    error_message           text,
    error_details           jsonb,
    error_frame             int,
    worker_id               text,
    worker_host             text,
    aerender_pid            int,
    cache_hit               boolean            default false,
    cached_output_path      text,
    metadata                jsonb              default '{}',
    created_at              timestamptz        default now(),
    updated_at              timestamptz        default now()
);

-- ------------------------------------------------------------------------------------------
-- Other applications' tables, whose names ftstream must live beside
-- ------------------------------------------------------------------------------------------

create table sync_log (
    id          bigint generated always as identity primary key,
    source      text        not null,
    message     text,
    rows_synced int         default 0,
    logged_at   timestamptz default now()
);

create table sync_status (
    source       text not null primary key,
    last_sync_at timestamptz,
    is_healthy   boolean default true
);

create table sync_history (
    id          bigint generated always as identity primary key,
    source      text        not null,
    started_at  timestamptz not null default now(),
    finished_at timestamptz,
    details     jsonb       default '{}'
);

create table notifications (
    id         uuid        not null default gen_random_uuid() primary key,
    recipient  text        not null,
    title      text        not null,
    body       text,
    read_at    timestamptz,
    created_at timestamptz default now()
);

create table activity_log (
    id         bigint generated always as identity primary key,
    actor      text,
    action     text        not null,
    entity     text,
    details    jsonb       default '{}',
    created_at timestamptz default now()
);

create table manual_audit_log (
    id             bigint generated always as identity primary key,
    table_name     text                not null,
    record_id      uuid                not null,
    action         manual_audit_action not null,
    old_values     jsonb,
    new_values     jsonb,
    changed_fields text[],
    app_user       text,
    changed_at     timestamptz         default now()
);

-- ------------------------------------------------------------------------------------------
-- Triggers
-- ------------------------------------------------------------------------------------------

-- Whatever the statement set is lost: now() is the start of its transaction.
create function touch_updated_at() returns trigger language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end
$$;

do $$
declare
    touched name;
begin
    foreach touched in array array[
        'gfx_players', 'gfx_sessions', 'gfx_hands', 'wsop_events', 'wsop_players',
        'player_overrides', 'cue_sheets', 'render_queue']::name[]
    loop
        execute format(
            'create trigger %I before update on %I for each row execute function touch_updated_at()',
            touched || '_touch_updated_at', touched);
    end loop;
end
$$;

-- lower() follows the locale of the database, so the two sites may derive different values.
create function normalize_wsop_player_name() returns trigger language plpgsql as $$
begin
    new.name_normalized := lower(trim(new.name));
    return new;
end
$$;

create trigger wsop_players_normalize_name before insert or update on wsop_players
    for each row execute function normalize_wsop_player_name();

create function audit_player_override() returns trigger language plpgsql as $$
declare
    before_change jsonb := to_jsonb(old); -- null on insert, as new is on delete
    after_change  jsonb := to_jsonb(new);
    did           manual_audit_action;
begin
    did := case tg_op when 'INSERT' then 'CREATE' when 'UPDATE' then 'UPDATE' else 'DELETE' end;
    insert into manual_audit_log
        (table_name, record_id, action, old_values, new_values, changed_fields, app_user)
    values (
        tg_table_name, coalesce(new.id, old.id), did, before_change, after_change,
        array(
            select field
            from jsonb_object_keys(coalesce(after_change, before_change)) as field
            where before_change -> field is distinct from after_change -> field
            order by field),
        coalesce(nullif(current_setting('app.current_user', true), ''), session_user));
    return null;
end
$$;

create trigger player_overrides_audit after insert or update or delete on player_overrides
    for each row execute function audit_player_override();

-- A write to a sheet changes the broadcast it belongs to (both, when it moves).
create function sum_cue_sheets() returns trigger language plpgsql as $$
begin
    update broadcast_sessions b
    set total_cue_items = s.total, completed_cue_items = s.completed, updated_at = now()
    from (
        select b2.id,
               coalesce(sum(c.total_items), 0)     as total,
               coalesce(sum(c.completed_items), 0) as completed
        from broadcast_sessions b2 left join cue_sheets c on c.session_id = b2.id
        where b2.id in (new.session_id, old.session_id)
        group by b2.id) as s
    where b.id = s.id;
    return null;
end
$$;

create trigger cue_sheets_sum after insert or update or delete on cue_sheets
    for each row execute function sum_cue_sheets();

-- A write to an item, which is not synced, changes its sheet, which is.
create function recount_cue_items() returns trigger language plpgsql as $$
begin
    update cue_sheets s
    set total_items = (select count(*) from cue_items i where i.sheet_id = s.id),
        completed_items = (
            select count(*) from cue_items i where i.sheet_id = s.id and i.status = 'completed')
    where s.id in (new.sheet_id, old.sheet_id);
    return null;
end
$$;

create trigger cue_items_recount after insert or update or delete on cue_items
    for each row execute function recount_cue_items();

-- ------------------------------------------------------------------------------------------
-- What the importer calls once a session's hands are in: every derived column, never raw_json
-- ------------------------------------------------------------------------------------------

create function recompute_session_totals(wanted_session_id bigint) returns int
language plpgsql as $$
declare
    changed int;
begin
    update gfx_sessions s
    set hand_count = h.hands,
        total_duration_seconds = h.seconds,
        avg_hand_duration = make_interval(secs => h.average),
        session_start_time = h.first_start,
        session_end_time = h.last_end,
        premium_hands_count = h.premium,
        player_count = (
            select count(distinct p.player_name)
            from gfx_hands g join gfx_hand_players p on p.hand_id = g.id
            where g.session_id = wanted_session_id),
        grade_summary = coalesce((
            select jsonb_object_agg(graded.grade, graded.hands)
            from (select grade, count(*) as hands from gfx_hands
                  where session_id = wanted_session_id and grade is not null
                  group by grade) as graded), '{}'),
        sync_status = 'updated',
        processed_at = now()
    from (
        select count(*)                           as hands,
               coalesce(sum(duration_seconds), 0) as seconds,
               avg(duration_seconds)              as average,
               min(start_time)                    as first_start,
               max(start_time + make_interval(secs => coalesce(duration_seconds, 0))) as last_end,
               count(*) filter (where is_premium) as premium
        from gfx_hands
        where session_id = wanted_session_id) as h
    where s.session_id = wanted_session_id;
    get diagnostics changed = row_count;
    return changed;
end
$$;

-- ------------------------------------------------------------------------------------------
-- Row level security: on, not forced, so that the owner passes. Where service_role has no
-- policy for delete its deletes find no rows and report no error.
-- ------------------------------------------------------------------------------------------

do $$
declare
    guarded   name;
    deletable constant name[] := array[
        'gfx_hand_players', 'wsop_chip_counts', 'cue_sheets', 'render_queue'];
begin
    foreach guarded in array array[
        'gfx_players', 'gfx_sessions', 'gfx_hands', 'gfx_hand_players',
        'wsop_events', 'wsop_players', 'wsop_chip_counts',
        'player_overrides', 'profile_images', 'cue_sheets', 'render_queue']::name[]
    loop
        execute format('alter table %I enable row level security', guarded);
        execute format('grant select on %I to authenticated', guarded);
        execute format('grant select, insert, update, delete on %I to service_role', guarded);
        execute format(
            'create policy authenticated_reads on %I for select to authenticated using (true)',
            guarded);
        execute format(
            'create policy service_reads on %I for select to service_role using (true)', guarded);
        execute format(
            'create policy service_inserts on %I for insert to service_role with check (true)',
            guarded);
        execute format(
            'create policy service_updates on %I for update to service_role '
            'using (true) with check (true)', guarded);
        if guarded = any (deletable) then
            execute format(
                'create policy service_deletes on %I for delete to service_role using (true)',
                guarded);
        end if;
    end loop;
end
$$;
