-- ftstream's schema on Supabase, as PostgreSQL writes it out; External's lacks what is for people.
-- Derived, by `make schema`: tables come from setup/migrations, functions from functions.sql of each room.

CREATE SCHEMA ftstream;

COMMENT ON SCHEMA ftstream IS 'ftstream: synchronisation of External and Supabase through Kafka';

CREATE TYPE ftstream.operation AS ENUM (
    'insert',
    'update',
    'delete',
    'snapshot',
    'truncate',
    'repair'
);

CREATE TYPE ftstream.outcome AS ENUM (
    'applied',
    'merged',
    'reread',
    'superseded',
    'recorded',
    'parked',
    'dead',
    'dropped',
    'duplicate',
    'refused',
    'conflict_update_update',
    'conflict_update_delete',
    'conflict_delete_update',
    'conflict_insert_insert',
    'run_done',
    'run_failed'
);

CREATE TYPE ftstream.parked_state AS ENUM (
    'parked',
    'dead'
);

CREATE TYPE ftstream.site AS ENUM (
    'external',
    'supabase'
);

CREATE FUNCTION ftstream.announce(channel text, name text, written ftstream.operation, entity text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    message jsonb := jsonb_build_object('table', name, 'operation', written, 'id', entity, 'timestamp', now());
begin
    if current_query() ~* '(^|;)\s*prepare\s+transaction\s' then  -- what the client has sent, data and all
        return;
    end if;
    if octet_length(message::text) >= 8000 then
        message := message || '{"id": null}';
    end if;
    perform pg_notify(channel, message::text);
end $$;

CREATE FUNCTION ftstream.author_of(login name, claims text, said text, OUT author text, OUT named boolean) RETURNS record
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    author := case when login = 'authenticator' then ftstream.claimed(claims) end;
    if author is null and said <> '' then
        author := left(said, 200) || ' (' || login || ')';
    end if;
    named := author is not null;
    author := coalesce(author, login);
end $$;

CREATE FUNCTION ftstream.beat(tables regclass[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    target regclass;
    beat   constant text := json_build_object('op', 'm', 'source', json_build_object(
        'ts_ms', (extract(epoch from clock_timestamp()) * 1000)::bigint))::text;
    name   text;
    number bigint;
begin
    foreach target in array tables loop
        name := (select c.relname from pg_class c where c.oid = target);
        if (ftstream.captured_as(target))[1] = 'external' then
            insert into ftstream.outbox (table_name, entity_id, payload) values (name, 'ftstream', beat)
            returning id into number;
            delete from ftstream.outbox where id = number;  -- Debezium reads the insert from the log
        else
            insert into ftstream.outbox (table_name, entity_id, payload, transaction)
            values (name, 'ftstream', beat, pg_current_xact_id()::text::bigint);
        end if;
    end loop;
end $$;

CREATE FUNCTION ftstream.capture() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO, YMD'
    SET "IntervalStyle" TO 'postgres'
    SET "TimeZone" TO 'UTC'
    SET extra_float_digits TO '1'
    SET bytea_output TO 'hex'
    AS $_$
declare
    target  constant regclass := tg_argv[1];
    name    constant text     := case when tg_relid = target then tg_table_name
                                      else (select c.relname from pg_class c where c.oid = target) end;
    key     constant name     := tg_argv[2];
    -- Read here, since it may be set for this statement alone, and be gone at the commit.
    who     constant record   := ftstream.author_of(
        session_user, current_setting('request.jwt.claims', true), current_setting('ftstream.author', true));
    before  text;
    after   text;
    entity  text;
begin
    -- A view that has taken the table's name may hide rows; of a partition the table is the whole.
    if tg_relid <> target and pg_partition_root(tg_relid) is distinct from target then
        raise exception 'the trigger % of % captures %, which is another relation', tg_name, tg_relid::regclass, target
            using errcode = 'object_not_in_prerequisite_state',
                  hint = 'Give the table its name back, or drop the trigger, which captures it no more.';
    end if;
    if key = 'id' then  -- named here it has a plan, which is a good part of what capturing costs
        before := case when tg_op <> 'INSERT' then old.id::text end;
        after  := case when tg_op <> 'DELETE' then new.id::text end;
    else
        if tg_op <> 'INSERT' then
            execute format('select ($1).%I::text', key) into before using old;
        end if;
        if tg_op <> 'DELETE' then
            execute format('select ($1).%I::text', key) into after using new;
        end if;
    end if;
    -- Too large is an error of the statement. Text of less than 4 MiB of values is hardly over the limit; where it
    -- is, hand_over says so at the commit.
    if after is not null and pg_column_size(new) > 4194304 then
        perform ftstream.require_size(target, after, octet_length((to_jsonb(new) - tg_argv[3:])::text));
    end if;
    -- Two entities, where an update has changed the key: the old one is gone, the new one is there.
    foreach entity in array case when before <> after then array[before, after]
                                 else array[coalesce(after, before)] end loop
        insert into ftstream.last_write as w
            (table_name, entity_id, version, site, operation, transaction, relation, born, deleted, author)
        values (name, entity, (extract(epoch from clock_timestamp()) * 1000000)::bigint, tg_argv[0]::ftstream.site,
                case when entity is distinct from after then 'delete'
                     when entity is distinct from before then 'insert' else 'update' end::ftstream.operation,
                pg_current_xact_id(), target, entity is distinct from before, entity is distinct from after,
                who.author)
        on conflict (table_name, entity_id) do update
        set version = greatest(excluded.version, w.version + 1, w.reserved + 1), site = excluded.site,
            operation = excluded.operation, transaction = excluded.transaction, relation = excluded.relation,
            -- Of several writes in a transaction. They need not come in order: a trigger that fires before this
            -- one and writes the row again is noted first. So an insert is one whatever was noted before it, but
            -- for a delete: then the row was there when the transaction began.
            born = case when w.transaction = excluded.transaction
                        then w.born or (excluded.born and not w.deleted) else excluded.born end,
            deleted = excluded.deleted or (w.transaction = excluded.transaction and w.deleted) is true,
            -- One that names nobody, such as a trigger's, leaves who was named.
            author = case when w.transaction = excluded.transaction and not who.named then w.author
                          else excluded.author end;
    end loop;
    return null;
end $_$;

CREATE FUNCTION ftstream.captured_as(target regclass) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    arguments constant text[] := (
        select array_agg(convert_from(decode(a.piece, 'escape'), current_setting('server_encoding')) order by a.place)
        from pg_trigger t, unnest(string_to_array(encode(t.tgargs, 'escape'), '\000')) with ordinality as a(piece, place)
        where t.tgrelid = target and t.tgname = 'ftstream_capture' and a.place <= t.tgnargs
          and t.tgfoid = 'ftstream.capture()'::regprocedure);
begin
    if arguments is null then
        raise exception '% is not captured', target using errcode = 'object_not_in_prerequisite_state',
            hint = 'Run `ftstream init`.';
    end if;
    return arguments;
end $$;

CREATE FUNCTION ftstream.carry_parent(parent_table regclass, image jsonb) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    columns text;
    done    integer;
begin
    perform ftstream.require_referred_to(parent_table);
    select string_agg(quote_ident(a.attname), ', ') into columns from pg_catalog.pg_attribute a
    where a.attrelid = parent_table and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
      and image ? a.attname::text;
    execute format('insert into %1$s (%2$s) overriding system value'
                   ' select %2$s from jsonb_populate_record(null::%1$s, $1) on conflict do nothing',
                   parent_table, columns) using image;
    get diagnostics done = row_count;
    return done = 1;
end $_$;

CREATE FUNCTION ftstream.check_sync_health_and_notify(language text DEFAULT 'ko'::text) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    unhealthy record;
    found     integer := 0;
begin
    for unhealthy in
        select * from ftstream.v_sync_dashboard d where d.health_status in ('CRITICAL', 'ERROR')
    loop
        insert into ftstream.notifications (type, severity, title, message, metadata, target_user)
        values (
            'sync_failure', case unhealthy.health_status when 'CRITICAL' then 'critical' else 'error' end,
            case language when 'ko' then '동기화 실패: ' else 'sync failure: ' end
                || unhealthy.source || '.' || unhealthy.entity_type,
            format(case language when 'ko' then '연속 실패 %s회. 마지막 동기화: %s'
                                 else '%s failures in a row. Last sync: %s' end,
                   unhealthy.consecutive_failures, coalesce(unhealthy.last_synced_at::text, '-')),
            jsonb_build_object('source', unhealthy.source, 'entity_type', unhealthy.entity_type,
                               'lag_seconds', unhealthy.lag_seconds),
            'admin')
        on conflict (type, title) where read_at is null do update
        set times = notifications.times + 1, last_at = clock_timestamp(), severity = excluded.severity,
            message = excluded.message, metadata = excluded.metadata;
        found := found + 1;
    end loop;
    return found;
end $$;

CREATE FUNCTION ftstream.claimed(claims text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if coalesce(claims, '') = '' then
        return null;
    end if;
    return coalesce(nullif(claims::jsonb ->> 'email', ''), nullif(claims::jsonb ->> 'sub', ''));
exception when invalid_text_representation then
    return null;  -- somebody has set it to what is no token
end $$;

CREATE FUNCTION ftstream.hand_over(here ftstream.site, target regclass, entity text, written ftstream.operation, version bigint, author text, image jsonb, json_nulls text[], more jsonb DEFAULT '{}'::jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    name    constant text := (select c.relname from pg_class c where c.oid = target);
    plain   constant jsonb := jsonb_build_object(
        'id', entity, 'op', written, 'site', here, 'version', version, 'author', author, 'row', image,
        'json_nulls', json_nulls);
    message constant text := case when more = '{}' then plain else plain || more end;
    number  bigint;
begin
    -- Most are not worth the calls.
    if octet_length(message) > 1048576 then
        perform ftstream.require_size(target, entity, octet_length(message));
    end if;
    if octet_length(message) > 2000 then
        perform ftstream.require_readable(target, entity, message);
    end if;
    if here = 'external' then
        insert into ftstream.outbox (table_name, entity_id, payload) values (name, entity, message)
        returning id into number;
        delete from ftstream.outbox where id = number;  -- Debezium reads the insert from the log
    else
        insert into ftstream.outbox (table_name, entity_id, payload, transaction)
        values (name, entity, message, pg_current_xact_id()::text::bigint);
    end if;
end $$;

CREATE FUNCTION ftstream.hand_over_again(target regclass, entities text[], versions bigint[], author text, only_unknown boolean) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    arguments constant text[] := ftstream.captured_as(target);
    name      constant text   := (select c.relname from pg_class c where c.oid = target);
    key_type  constant text   := (
        select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = target and a.attname = arguments[3]);
    asked     record;
    row       record;
    noted     ftstream.operation;
    written   ftstream.operation;
    stamp     bigint;
    done      integer := 0;
begin
    for asked in select e.id, e.version from unnest(entities, versions) as e(id, version) order by e.id loop
        -- Row first, then last_write, as a user's own write takes its locks; and the image after both, or a
        -- user who commits meanwhile would be told the other site as he was before, in a greater version.
        execute format('select from %s t where t.%I = $1::%s for update', target, arguments[3], key_type) using asked.id;
        insert into ftstream.last_write as w (table_name, entity_id, version, site, operation)
        values (name, asked.id, coalesce(asked.version, 1), arguments[1]::ftstream.site, 'update')
        on conflict (table_name, entity_id) do update
        set version = case when asked.version is null and w.site = excluded.site then w.version
                           else greatest(asked.version, w.version + 1, w.reserved + 1) end,
            site = excluded.site
        where not only_unknown
        returning w.version, w.operation into stamp, noted;
        continue when stamp is null;
        select * into row from ftstream.image_of(target, asked.id);
        written := case when row.image is null then 'delete' when noted = 'delete' then 'update' else noted end;
        update ftstream.last_write w set operation = written where (w.table_name, w.entity_id) = (name, asked.id);
        perform ftstream.hand_over(
            arguments[1]::ftstream.site, target, asked.id, written, stamp, author, row.image, row.json_nulls);
        done := done + 1;
    end loop;
    return done;
end $_$;

CREATE FUNCTION ftstream.hand_over_noted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO, YMD'
    SET "IntervalStyle" TO 'postgres'
    SET "TimeZone" TO 'UTC'
    SET extra_float_digits TO '1'
    SET bytea_output TO 'hex'
    AS $_$
declare
    arguments  text[];  -- what `init` has told the trigger of the table
    documents  text[];  -- the columns that may hold a JSON null, which in an image looks like no value at all
    image      jsonb;
    json_nulls text[];
    written    ftstream.operation;
begin
    select string_to_array(convert_from(decode(replace(encode(t.tgargs, 'escape'), '\000', chr(31)), 'escape'),
                                        current_setting('server_encoding')), chr(31)),
           array(select a.attname from pg_attribute a where a.attrelid = new.relation and a.atttypid = 'jsonb'::regtype)
    into arguments, documents
    from ftstream.last_write w
    left join pg_trigger t on t.tgrelid = new.relation and t.tgname = 'ftstream_capture'
                           and t.tgfoid = 'ftstream.capture()'::regprocedure
    where (w.table_name, w.entity_id, w.version) = (new.table_name, new.entity_id, new.version);
    if not found then
        return null;  -- written again since
    end if;
    if arguments is null then
        if not exists (select from pg_class c where c.oid = new.relation) then
            return null;  -- no row of it was deleted: the table was dropped
        end if;
        raise exception '% was written and its trigger ftstream_capture dropped in one transaction', new.relation::regclass
            using errcode = 'object_not_in_prerequisite_state', hint = 'Drop it in a transaction of its own.';
    end if;
    if row_security_active(new.relation) then
        perform ftstream.require_visible(new.relation);
    end if;
    -- One plain look by the key is the cheapest plan to make, which is most of what capturing costs.
    execute format('select to_jsonb(t) from %s t where t.%I = %L', new.relation::regclass, arguments[3], new.entity_id)
        into image;
    written := case when image is not null then case when new.born then 'insert' else 'update' end
                    when new.deleted then 'delete' end;
    if written is null then
        raise exception '% % cannot be found, though the transaction has not deleted it', new.relation::regclass, new.entity_id
            using errcode = 'object_not_in_prerequisite_state',
                  hint = 'What hides it (a partition that was detached?) belongs into a transaction of its own.';
    end if;
    if written <> new.operation then
        update ftstream.last_write w set operation = written
        where (w.table_name, w.entity_id) = (new.table_name, new.entity_id);
    end if;
    if documents <> '{}' then  -- most tables have none
        documents := array(select d from unnest(documents) d where image -> d = 'null');
    end if;
    if documents <> '{}' then
        execute format('select array_remove(array[%s], null) from %s t where t.%I = %L', (
                           select string_agg(format('case when t.%1$I is not null then %1$L end', d), ', ')
                           from unnest(documents) d),
                       new.relation::regclass, arguments[3], new.entity_id) into json_nulls;
    end if;
    perform ftstream.hand_over(
        new.site, new.relation, new.entity_id, written, new.version, new.author, image - arguments[4:], json_nulls);
    if arguments[4] is not null then
        perform ftstream.announce(substr(a.spelt, 8), new.table_name, written, new.entity_id)
        from unnest(arguments[4:]) as a(spelt) where a.spelt like 'notify:%';
    end if;
    return null;
end $_$;

CREATE FUNCTION ftstream.image_of(target regclass, entity text, OUT image jsonb, OUT json_nulls text[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO, YMD'
    SET "IntervalStyle" TO 'postgres'
    SET "TimeZone" TO 'UTC'
    SET extra_float_digits TO '1'
    SET bytea_output TO 'hex'
    AS $_$
declare
    arguments constant text[] := ftstream.captured_as(target);
    found     record;
    checks    text;
begin
    perform ftstream.require_visible(target);
    execute format('select to_jsonb(t) as image, t as current from %s t where t.%I = $1::%s', target, arguments[3], (
        select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = target and a.attname = arguments[3]))
        into found using entity;
    checks := ftstream.json_null_checks(target, found.image);
    if checks is not null then
        execute 'select ' || checks into json_nulls using found.current;
    end if;
    image := found.image - arguments[4:];
end $_$;

CREATE FUNCTION ftstream.inexact(place text, type text, value text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception '%: % cannot hold % exactly', place, type, left(value, 100) using errcode = 'FT017';
end $$;

CREATE FUNCTION ftstream.json_null_checks(target regclass, image jsonb) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select 'array_remove(array['
           || string_agg(format('case when ($1).%1$I is not null then %1$L end', a.attname), ', ') || '], null)'
    from pg_attribute a
    where a.attrelid = target and a.atttypid = 'jsonb'::regtype and image -> a.attname::text = 'null'
$_$;

CREATE FUNCTION ftstream.key_of(target regclass, OUT name text, OUT type text) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select a.attname, format_type(a.atttypid, null) from pg_catalog.pg_index i
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = target and i.indisprimary and i.indnkeyatts = 1
$$;

CREATE FUNCTION ftstream.log_row_by_row() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return new;
end $$;

CREATE FUNCTION ftstream.maintain_sync_log(keep_days integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $_$
declare
    keep constant integer := greatest(keep_days, 1);
    day  date;
    name text;
begin
    -- Two workers start at once: the second waits, and finds the partitions made.
    perform from ftstream.turn t where t.name = 'sync_log' for update;
    for day in
        select d::date from generate_series(current_date, current_date + 7, interval '1 day') d
        union select distinct l.logged_at::date from ftstream.sync_log_default l order by 1
    loop
        name := 'sync_log_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass('ftstream.' || name) is not null;
        execute format('create table ftstream.%I (like ftstream.sync_log including defaults)', name);
        execute format('alter table ftstream.%I enable row level security', name);
        execute format('with moved as (delete from ftstream.sync_log_default where logged_at >= %L and logged_at < %L returning *)'
                       ' insert into ftstream.%I select * from moved', day::timestamptz, (day + 1)::timestamptz, name);
        execute format('alter table ftstream.sync_log attach partition ftstream.%I for values from (%L) to (%L)',
                       name, day::timestamptz, (day + 1)::timestamptz);
    end loop;
    for name in
        select c.relname from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'ftstream.sync_log'::regclass
          and c.relname ~ '^sync_log_[0-9]{8}$'
          and to_date(right(c.relname, 8), 'YYYYMMDD') < current_date - keep
    loop
        execute format('drop table ftstream.%I', name);
    end loop;
    delete from ftstream.displaced where displaced_at < now() - make_interval(days => keep);
end $_$;

CREATE FUNCTION ftstream.missing_parents(child_table regclass, image jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    key     record;
    fk      record;
    wanted  text[];
    there   boolean;
    missing jsonb := '[]';
begin
    perform ftstream.require_in_flow(child_table);
    select * into key from ftstream.key_of(child_table);
    for fk in select * from ftstream.foreign_keys f where f.child = child_table order by f.name loop
        wanted := array(select image ->> c.name from unnest(fk.child_names) with ordinality as c(name, n) order by c.n);
        continue when array_position(wanted, null) is not null;
        perform ftstream.require_rights(fk.name, fk.parent, fk.trusted, '{SELECT}');
        execute format('select exists (select from %s p where array[%s] = $1)', fk.parent::regclass, (
            select string_agg(format('p.%I::text', c.name), ', ' order by c.n)
            from unnest(fk.names) with ordinality as c(name, n))) into there using wanted;
        continue when there;
        missing := missing || jsonb_build_array(jsonb_build_object(
            'table', (select r.relname from pg_class r where r.oid = child_table), 'id', image ->> key.name,
            'parent', fk.parent_name, 'columns', fk.names, 'key', wanted, 'nulls', fk.nulls));
    end loop;
    return missing;
end $_$;

CREATE FUNCTION ftstream.parent_image(parent_table regclass, columns text[], key text[]) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "DateStyle" TO 'ISO, YMD'
    SET "IntervalStyle" TO 'postgres'
    SET "TimeZone" TO 'UTC'
    SET extra_float_digits TO '1'
    SET bytea_output TO 'hex'
    AS $_$
declare
    image jsonb;
begin
    perform ftstream.require_referred_to(parent_table);
    perform ftstream.require_visible(parent_table);
    execute format('select to_jsonb(p) from %s p where array[%s] = $1', parent_table, (
        select string_agg(format('p.%I::text', c.name), ', ' order by c.n) from unnest(columns) with ordinality as c(name, n)))
        into image using key;
    return image;
end $_$;

CREATE FUNCTION ftstream.referring(target regclass, entity text) RETURNS TABLE(child text, rows bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    key record;
    fk  record;
begin
    perform ftstream.require_referred_to(target);
    select * into key from ftstream.key_of(target);
    for fk in select * from ftstream.foreign_keys f where f.parent = target and f.trusted order by f.name loop
        execute format('select count(*) from %s c join %s p on (%s) = (%s) where p.%I = $1::%s',
                       fk.child::regclass, target, fk.parent_columns, fk.child_columns, key.name, key.type)
            into rows using entity;
        child := fk.child::regclass::text;
        if rows > 0 then
            return next;
        end if;
    end loop;
end $_$;

CREATE FUNCTION ftstream.refuse(target regclass, entity text, over_version bigint, over_site text, version bigint, because text, instead jsonb, instead_nulls text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    arguments constant text[]        := ftstream.captured_as(target);
    here      constant ftstream.site := arguments[1];
    there     constant ftstream.site := case here when 'external' then 'supabase' else 'external' end;
    name      constant text          := (select c.relname from pg_class c where c.oid = target);
    mine      record;
    row       record;
begin
    insert into ftstream.last_write as w
        (table_name, entity_id, version, site, operation, received, reserved)
    values (name, entity, 0, here, 'delete', over_version, refuse.version)
    on conflict (table_name, entity_id) do update
    set received_before = w.received, received = greatest(w.received, over_version),
        reserved = greatest(w.reserved, refuse.version)
    returning w.version, w.site into mine;
    select * into row from ftstream.image_of(target, entity);
    if instead is not null then
        row.image := instead;
        row.json_nulls := instead_nulls;
    end if;
    perform ftstream.hand_over(
        here, target, entity, case when row.image is null then 'delete' else 'update' end::ftstream.operation,
        refuse.version, 'ftstream', row.image, row.json_nulls,
        jsonb_build_object('site', there, 'refusal', jsonb_build_object(
            'over', jsonb_build_object('version', over_version, 'site', over_site),
            'theirs', jsonb_build_object('version', mine.version, 'site', mine.site),
            'because', because)));
end $$;

CREATE FUNCTION ftstream.refuse_edit() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception '%.% belongs to flow %, which % owns: % is refused here',
        tg_table_schema, tg_table_name, tg_argv[0], tg_argv[1], lower(tg_op)
        using errcode = 'object_not_in_prerequisite_state',
              hint = format('Edit %I.%I on %s; flow %s carries the change here.',
                            tg_table_schema, tg_table_name, tg_argv[1], tg_argv[0]);
end $$;

CREATE FUNCTION ftstream.refuse_truncate() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception '%.% is synchronised row by row (flow %): TRUNCATE is refused',
        tg_table_schema, tg_table_name, tg_argv[0]
        using errcode = 'object_not_in_prerequisite_state', hint = format('DELETE FROM %I.%I', tg_table_schema, tg_table_name);
end $$;

CREATE FUNCTION ftstream.release(parent_table regclass, ids text[], carried regclass[], rewritten text[] DEFAULT '{}'::text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    key       record;
    child_key record;
    fk        record;
    condition text;
    found     jsonb;
    children  text[];
    referring jsonb := '[]';
begin
    if coalesce(cardinality(ids), 0) = 0 then
        return;
    end if;
    select * into key from ftstream.key_of(parent_table);
    for fk in select * from ftstream.foreign_keys f where f.parent = parent_table order by f.name loop
        condition := format('(%s) in (select %s from %s p where p.%I = any($1::%s[]))',
                            fk.child_columns, fk.parent_columns, parent_table, key.name, key.type);
        if fk.child = any(carried) and fk.on_delete not in ('a', 'r') then
            continue;
        end if;
        if not fk.trusted then
            raise exception 'constraint % has % refer to rows of % that are to be deleted: that belongs to %',
                fk.name, fk.child::regclass, parent_table,
                (select c.relowner::regrole from pg_class c where c.oid = fk.child)
                using errcode = 'FT019', hint = 'Delete them there by hand, or drop the constraint.';
        end if;
        perform ftstream.require_rights(fk.name, fk.child, fk.trusted, case fk.on_delete
            when 'a' then '{SELECT}' when 'r' then '{SELECT}'
            when 'c' then '{SELECT,DELETE}' else '{SELECT,UPDATE}' end::text[]);
        if fk.on_delete in ('a', 'r') then
            select * into child_key from ftstream.key_of(fk.child);
            execute format(
                'select jsonb_agg(jsonb_build_object(''id'', p.%1$I::text, ''child'', %2$L, ''row'', c.%3$I::text))'
                ' from %4$s c join %5$s p on (%6$s) = (%7$s)'
                ' where p.%1$I = any($1::%8$s[])'
                '   and not (c.tableoid = p.tableoid and c.%3$I::text = any($1 || $2))',  -- it goes with it, or lets go
                key.name, fk.child::regclass::text, coalesce(child_key.name, 'ctid'), fk.child::regclass, parent_table,
                fk.parent_columns, fk.child_columns, key.type) into found using ids, rewritten;
            referring := referring || coalesce(found, '[]');
        elsif fk.on_delete = 'c' then
            select * into child_key from ftstream.key_of(fk.child);
            if child_key.name is not null then
                execute format('select array_agg(c.%I::text) from %s c where %s', child_key.name, fk.child::regclass, condition)
                    into children using ids;
                perform ftstream.release(fk.child::regclass, children, carried);
            end if;
            execute format('delete from %s c where %s', fk.child::regclass, condition) using ids;
        elsif fk.on_delete = 'n' then
            execute format('update %s c set %s where %s', fk.child::regclass, fk.to_null, condition) using ids;
        else
            execute format('update %s c set %s where %s', fk.child::regclass, fk.to_default, condition) using ids;
        end if;
    end loop;
    if referring <> '[]' then
        raise exception 'rows refer to those of % that are to be deleted', parent_table
            using errcode = 'FT006', detail = referring::text;
    end if;
end $_$;

CREATE FUNCTION ftstream.release_children(parent_table regclass, ids text[], carried regclass[], rewritten text[] DEFAULT '{}'::text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform ftstream.require_in_flow(parent_table);
    perform ftstream.release(parent_table, ids, carried, rewritten);
end $$;

CREATE FUNCTION ftstream.require(condition boolean, failure text, explanation text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if condition is not true then
        raise exception '%', explanation using errcode = failure;
    end if;
end $$;

CREATE FUNCTION ftstream.require_exact(target regclass, image jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $_$
declare
    held jsonb;
    odd  record;
begin
    execute format('select to_jsonb(jsonb_populate_record(null::%s, $1))', target) into held using image;
    select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, image -> a.attname::text as value
    into odd from pg_attribute a
    where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
      and image -> a.attname::text <> held -> a.attname::text
      and image ->> a.attname::text is distinct from held ->> a.attname::text
      and case when a.atttypid = any('{date,timestamp,timestamptz}'::regtype[])
               then (image ->> a.attname::text)::timestamptz <> (held ->> a.attname::text)::timestamptz
               -- The blanks of char(n) are no part of the value.
               when a.atttypid = 'bpchar'::regtype
               then rtrim(image ->> a.attname::text, ' ') <> rtrim(held ->> a.attname::text, ' ')
               else true end
    order by a.attnum limit 1;
    if found then
        perform ftstream.inexact(target || '.' || odd.name, odd.type, odd.value::text);
    end if;
end $_$;

CREATE FUNCTION ftstream.require_in_flow(target regclass) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if not exists (select from pg_trigger t where t.tgrelid = target and t.tgfoid in (
        'ftstream.capture()'::regprocedure, 'ftstream.refuse_edit()'::regprocedure)) then
        raise exception '% is no table of a flow', target using errcode = 'insufficient_privilege';
    end if;
end $$;

CREATE FUNCTION ftstream.require_parents(child_table regclass, ids text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    key     record;
    fk      record;
    found   jsonb;
    missing jsonb := '[]';
begin
    perform ftstream.require_in_flow(child_table);
    select * into key from ftstream.key_of(child_table);
    for fk in select * from ftstream.foreign_keys f where f.child = child_table order by f.name loop
        perform ftstream.require_rights(fk.name, fk.parent, fk.trusted, '{SELECT,UPDATE}');
        execute format(
            'select from %1$s p where (%2$s) in (select %3$s from %4$s c where c.%5$I = any($1::%6$s[]) and %7$s)'
            ' for key share of p',
            fk.parent::regclass, fk.parent_columns, fk.child_columns, child_table, key.name, key.type, fk.present)
            using ids;
        -- A statement of its own: it sees what was deleted while the one before waited.
        execute format(
            'select jsonb_agg(jsonb_build_object('
            '    ''table'', %11$L, ''id'', c.%5$I::text, ''parent'', %8$L, ''columns'', %9$L::text[], ''key'', array[%10$s],'
            '    ''nulls'', %12$L::text[]))'
            ' from %4$s c where c.%5$I = any($1::%6$s[]) and %7$s'
            '  and not exists (select from %1$s p where (%2$s) = (%3$s))',
            fk.parent::regclass, fk.parent_columns, fk.child_columns, child_table, key.name, key.type, fk.present,
            fk.parent_name, fk.names, fk.child_texts, (select r.relname from pg_class r where r.oid = child_table),
            fk.nulls) into found using ids;
        missing := missing || coalesce(found, '[]');
    end loop;
    if missing <> '[]' then
        raise exception 'rows are missing that % refers to', child_table using errcode = 'FT005', detail = missing::text;
    end if;
end $_$;

CREATE FUNCTION ftstream.require_readable(target regclass, entity text, message text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    image  jsonb;
    member record;
begin
    if octet_length(message) - octet_length(replace(replace(message, '[', ''), '{', '')) < 2000 then
        return;
    end if;
    begin
        perform (repeat('[', 100) || message || repeat(']', 100))::json;
        return;
    exception when statement_too_complex then
        null;
    end;
    for member in select e.key, e.value::text as spelt from jsonb_each(message::jsonb -> 'row') e loop
        begin
            perform (repeat('[', 100) || member.spelt || repeat(']', 100))::json;
        exception when statement_too_complex then
            raise exception '%.% of row % nests too deep: it cannot be carried to the other site', target, member.key, entity
                using errcode = 'program_limit_exceeded',
                      hint = format('JSON may nest as deep as max_stack_depth (%s) allows, less a hundred levels.',
                                    current_setting('max_stack_depth'));
        end;
    end loop;
end $$;

CREATE FUNCTION ftstream.require_referred_to(target regclass) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if not exists (
        with recursive reached(table_id) as (
            select t.tgrelid from pg_trigger t
            where t.tgfoid in ('ftstream.capture()'::regprocedure, 'ftstream.refuse_edit()'::regprocedure)
            union select f.parent from ftstream.foreign_keys f join reached r on f.child = r.table_id where f.trusted)
        select from reached where table_id = target) then
        raise exception 'no table of a flow refers to %', target using errcode = 'insufficient_privilege',
            hint = 'What it refers to may belong to another role: its rows are not carried.';
    end if;
end $$;

CREATE FUNCTION ftstream.require_rights(key_name text, target regclass, trusted boolean, privileges text[]) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    lacking constant text := (
        select string_agg(p.name, ', ') from unnest(privileges) as p(name)
        where not has_table_privilege(target, p.name));
begin
    if trusted and lacking is null then
        perform ftstream.require_visible(target);
    elsif lacking is not null or row_security_active(target) then
        raise exception 'constraint %: % belongs to %, and role % may not look at it',
            key_name, target, (select c.relowner::regrole from pg_class c where c.oid = target), current_user
            using errcode = 'FT019',
                  hint = case when trusted then 'Run `ftstream init`.'
                              else format('GRANT %s ON %s TO %I, or drop the constraint.',
                                          array_to_string(privileges, ', '), target, current_user) end;
    end if;
end $$;

CREATE FUNCTION ftstream.require_size(target regclass, entity text, bytes integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if bytes > 15728640 then
        raise exception '% % has % bytes: a row of over 15 MiB cannot be carried to the other site',
            target, entity, bytes using errcode = 'program_limit_exceeded';
    end if;
end $$;

CREATE FUNCTION ftstream.require_unchanged(tables oid[], seen text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    name text;
begin
    select t.id::regclass::text into name
    from unnest(tables, seen) as t(id, seen) left join pg_class c on c.oid = t.id
    where c.xmin::text is distinct from t.seen limit 1;
    if found then
        raise exception '% was altered', name using errcode = 'FT018';
    end if;
end $$;

CREATE FUNCTION ftstream.require_visible(target regclass) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if row_security_active(target) and (not exists (
        select from pg_policy p where p.polrelid = target and p.polpermissive and p.polcmd = '*'
        and current_user::regrole = any(p.polroles) and pg_get_expr(p.polqual, p.polrelid) = 'true')
        or exists (
        select from pg_policy p where p.polrelid = target and not p.polpermissive
        and exists (select from unnest(p.polroles) as r(id) where r.id = 0 or pg_has_role(r.id, 'MEMBER')))) then
        raise exception 'row level security hides rows of % from role %', target, current_user
            using errcode = 'insufficient_privilege', hint = 'Run `ftstream init`.';
    end if;
end $$;

CREATE FUNCTION ftstream.retry_failed_syncs() RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    retried integer;
begin
    update ftstream.sync_status
    set status = 'pending', next_sync_at = now()
    where status = 'failed' and consecutive_failures < 5
      and coalesce(last_synced_at < now() - interval '5 minutes', true);
    get diagnostics retried = row_count;
    if retried > 0 then
        insert into ftstream.activity_log (action, entity_type, details)
        values ('sync_retry', 'sync_status', jsonb_build_object('retry_count', retried));
    end if;
    return retried;
end $$;

CREATE FUNCTION ftstream.tell_again(target regclass, entities text[], yields boolean) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    arguments constant text[] := ftstream.captured_as(target);
    name      constant text   := (select c.relname from pg_class c where c.oid = target);
    written   record;
    row       record;
    told      integer := 0;
begin
    -- Whoever writes one of them meanwhile has taken its lock in last_write after that of the row.
    for written in
        select w.entity_id as entity, w.version, w.operation from ftstream.last_write w
        where w.table_name = name and w.entity_id = any(entities) and w.site = arguments[1]::ftstream.site
        order by w.entity_id for share
    loop
        select * into row from ftstream.image_of(target, written.entity);
        perform ftstream.hand_over(
            arguments[1]::ftstream.site, target, written.entity,
            case when row.image is null then 'delete' else written.operation end, written.version, 'ftstream', row.image,
            row.json_nulls, case when yields then '{"yields": true}' else '{}' end::jsonb);
        told := told + 1;
    end loop;
    return told;
end $$;


SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE ftstream.activity_log (
    id bigint NOT NULL,
    action text NOT NULL,
    entity_type text NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

COMMENT ON TABLE ftstream.activity_log IS 'What people and schedulers have ftstream do (guidelines 6.3)';

ALTER TABLE ftstream.activity_log ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ftstream.activity_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ftstream.alert (
    code text NOT NULL,
    subject text NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    severity text NOT NULL,
    what text NOT NULL,
    command text NOT NULL,
    flows text[] NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    told_at timestamp with time zone,
    told_as text,
    times integer DEFAULT 0 NOT NULL,
    acknowledged_by text DEFAULT ''::text NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT alert_severity_check CHECK ((severity = ANY (ARRAY['info'::text, 'warning'::text, 'error'::text, 'critical'::text])))
);

COMMENT ON TABLE ftstream.alert IS 'What the watcher has found, and told; `ftstream explain CODE` says what it means';

COMMENT ON COLUMN ftstream.alert.closed_at IS 'when it was over';

CREATE TABLE ftstream.applied_offset (
    topic text NOT NULL,
    kafka_partition integer NOT NULL,
    next_offset bigint NOT NULL,
    source_position bigint,
    record_digest bigint,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT applied_offset_next_offset_check CHECK ((next_offset >= 0))
);

COMMENT ON TABLE ftstream.applied_offset IS 'Per topic partition, the offset up to which this database holds the changes: the authority, whatever Kafka''s group has committed';

COMMENT ON COLUMN ftstream.applied_offset.record_digest IS 'of the last record applied: another one at its offset shows that the topic was made anew';

CREATE TABLE ftstream.batch_source (
    flow text NOT NULL,
    table_name text NOT NULL,
    system_identifier text NOT NULL,
    timeline integer NOT NULL,
    source_seen pg_snapshot NOT NULL,
    target_seen pg_snapshot NOT NULL
);

COMMENT ON TABLE ftstream.batch_source IS 'Which External the last run of a table read, and what it saw of both sites: another one may lack rows; and what was written here since, and not by ftstream, was edited';

CREATE TABLE ftstream.compared (
    one boolean DEFAULT true NOT NULL,
    compared_at timestamp with time zone NOT NULL,
    differing jsonb NOT NULL,
    CONSTRAINT compared_one_check CHECK (one)
);

COMMENT ON TABLE ftstream.compared IS 'When all tables of both sites were compared last, and how many rows of which differed';

CREATE TABLE ftstream.displaced (
    id bigint NOT NULL,
    displaced_at timestamp with time zone DEFAULT now() NOT NULL,
    table_name text NOT NULL,
    entity_id text NOT NULL,
    reason text NOT NULL,
    image jsonb NOT NULL
);

COMMENT ON TABLE ftstream.displaced IS 'Rows taken out of the way of their owner''s: they held a unique value and their owner did not have them; kept as long as sync_log';

ALTER TABLE ftstream.displaced ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ftstream.displaced_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ftstream.flow_lag (
    flow text NOT NULL,
    worker text NOT NULL,
    changes bigint NOT NULL,
    p50_ms bigint,
    p99_ms bigint,
    heartbeat_at timestamp with time zone,
    noted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

COMMENT ON TABLE ftstream.flow_lag IS 'How late the changes of each flow came here in the last minute: from the commit at the source to the write here';

COMMENT ON COLUMN ftstream.flow_lag.changes IS 'that the worker has applied since it was started';

COMMENT ON COLUMN ftstream.flow_lag.heartbeat_at IS 'when the newest heartbeat was written at its source, which has come the whole way';

CREATE VIEW ftstream.foreign_keys WITH (security_invoker='true') AS
 SELECT (f.conname)::text AS name,
    f.conrelid AS child,
    f.confrelid AS parent,
        CASE
            WHEN ((f.confdeltype = 'n'::"char") AND k.fixed) THEN 'a'::"char"
            ELSE f.confdeltype
        END AS on_delete,
    (((n.nspname)::text || '.'::text) || (r.relname)::text) AS parent_name,
    k.child_columns,
    k.parent_columns,
    k.child_texts,
    k.present,
    k.to_null,
    k.to_default,
    k.names,
    k.child_names,
    COALESCE(k.nulls, '{}'::text[]) AS nulls,
    (r.relowner = o.relowner) AS trusted
   FROM (((pg_constraint f
     JOIN pg_class r ON ((r.oid = f.confrelid)))
     JOIN pg_class o ON ((o.oid = f.conrelid)))
     JOIN pg_namespace n ON ((n.oid = r.relnamespace))),
    LATERAL ( SELECT string_agg(format('c.%I'::text, c.attname), ', '::text ORDER BY u.n) AS child_columns,
            string_agg(format('p.%I'::text, p.attname), ', '::text ORDER BY u.n) AS parent_columns,
            string_agg(format('c.%I::text'::text, c.attname), ', '::text ORDER BY u.n) AS child_texts,
            string_agg(format('c.%I is not null'::text, c.attname), ' and '::text ORDER BY u.n) AS present,
            string_agg(format('%I = null'::text, c.attname), ', '::text ORDER BY u.n) AS to_null,
            string_agg(format('%I = default'::text, c.attname), ', '::text ORDER BY u.n) AS to_default,
            array_agg((p.attname)::text ORDER BY u.n) AS names,
            array_agg((c.attname)::text ORDER BY u.n) AS child_names,
            bool_or((c.attidentity = 'a'::"char")) AS fixed,
            array_agg((c.attname)::text ORDER BY u.n) FILTER (WHERE (NOT c.attnotnull)) AS nulls
           FROM ((UNNEST(f.conkey, f.confkey) WITH ORDINALITY u(child, parent, n)
             JOIN pg_attribute c ON (((c.attrelid = f.conrelid) AND (c.attnum = u.child))))
             JOIN pg_attribute p ON (((p.attrelid = f.confrelid) AND (p.attnum = u.parent))))) k
  WHERE ((f.contype = 'f'::"char") AND (f.conparentid = (0)::oid));

CREATE TABLE ftstream.gap (
    id bigint NOT NULL,
    flow text NOT NULL,
    table_name text NOT NULL,
    reason text NOT NULL,
    since timestamp with time zone NOT NULL,
    until timestamp with time zone,
    last xid8,
    found_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE ftstream.gap IS 'When the capture of a table here was broken: it goes once both sites have been compared';

COMMENT ON COLUMN ftstream.gap.since IS 'when it was last seen to be well';

COMMENT ON COLUMN ftstream.gap.until IS 'when it was well again; null: it is not yet';

COMMENT ON COLUMN ftstream.gap.last IS 'the transaction that noted its end: older ones may still commit what was not captured';

ALTER TABLE ftstream.gap ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ftstream.gap_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ftstream.horizon (
    table_name text NOT NULL,
    version bigint NOT NULL
);

COMMENT ON TABLE ftstream.horizon IS 'The greatest version of a tombstone that was pruned: an older write of an unknown entity is refused';

CREATE TABLE ftstream.last_write (
    table_name text NOT NULL,
    entity_id text NOT NULL,
    version bigint NOT NULL,
    site ftstream.site NOT NULL,
    operation ftstream.operation NOT NULL,
    received bigint DEFAULT 0 NOT NULL,
    received_before bigint DEFAULT 0 NOT NULL,
    transaction xid8,
    relation oid,
    born boolean,
    deleted boolean,
    author text,
    reserved bigint DEFAULT 0 NOT NULL
);

COMMENT ON TABLE ftstream.last_write IS 'The greatest version of each entity, and whose it is; a deleted entity stays as its tombstone';

COMMENT ON COLUMN ftstream.last_write.version IS 'microseconds since 1970 of the writer''s clock, or one more than the version it overwrote';

COMMENT ON COLUMN ftstream.last_write.received IS 'the greatest version that has come from the other site, whatever became of it';

COMMENT ON COLUMN ftstream.last_write.received_before IS 'what `received` was until the last change came';

COMMENT ON COLUMN ftstream.last_write.transaction IS 'the transaction here that captured it last, of which the columns after this one tell';

COMMENT ON COLUMN ftstream.last_write.relation IS 'the table that it wrote';

COMMENT ON COLUMN ftstream.last_write.born IS 'whether the row is new in it';

COMMENT ON COLUMN ftstream.last_write.deleted IS 'whether it has deleted the row, or changed its key: only then is a row that is not there a delete';

COMMENT ON COLUMN ftstream.last_write.author IS 'who wrote it';

COMMENT ON COLUMN ftstream.last_write.reserved IS 'the version in which the other site takes the row as it is here, if a write was refused to it: later writes here are greater';

CREATE TABLE ftstream.lineage (
    site ftstream.site NOT NULL,
    counter bigint NOT NULL,
    system_identifier text NOT NULL,
    counted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

COMMENT ON TABLE ftstream.lineage IS 'How far each site has counted, its own row and what was seen of the other: one that has counted less than was seen of it is a restored backup, or a replica that was behind';

CREATE TABLE ftstream.mute (
    code text NOT NULL,
    subject text NOT NULL,
    until timestamp with time zone NOT NULL,
    muted_by text NOT NULL
);

COMMENT ON TABLE ftstream.mute IS 'Alerts that are not told until a time; an empty code or subject means any';

CREATE TABLE ftstream.notifications (
    id bigint NOT NULL,
    type text NOT NULL,
    severity text NOT NULL,
    title text NOT NULL,
    message text NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    target_user text DEFAULT 'admin'::text NOT NULL,
    times integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    last_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    read_at timestamp with time zone,
    CONSTRAINT notifications_severity_check CHECK ((severity = ANY (ARRAY['info'::text, 'warning'::text, 'error'::text, 'critical'::text])))
);

COMMENT ON COLUMN ftstream.notifications.times IS 'how often it was told, until somebody read it';

ALTER TABLE ftstream.notifications ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ftstream.notifications_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ftstream.outbox (
    id bigint NOT NULL,
    table_name text NOT NULL,
    entity_id text NOT NULL,
    payload text NOT NULL,
    transaction bigint
);

COMMENT ON TABLE ftstream.outbox IS 'Changes on their way to Kafka. On External the log is their only copy: each row is deleted as soon as it is written';

COMMENT ON COLUMN ftstream.outbox.transaction IS 'whose message it is, where the outbox is a queue: the last one of a row and transaction counts';

ALTER TABLE ftstream.outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ftstream.outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ftstream.parked_change (
    id bigint NOT NULL,
    flow text NOT NULL,
    state ftstream.parked_state NOT NULL,
    table_name text NOT NULL,
    entity_id text NOT NULL,
    operation ftstream.operation,
    topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    key bytea,
    message bytea NOT NULL,
    source_position bigint,
    source_time timestamp with time zone,
    sqlstate text NOT NULL,
    error text NOT NULL,
    hint text NOT NULL,
    parked_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    first_attempt_at timestamp with time zone,
    next_attempt_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    reread boolean DEFAULT false NOT NULL
);

COMMENT ON TABLE ftstream.parked_change IS 'Changes that could not be applied yet; none goes but by being applied, by a later change that tells all of its row, or by a person';

COMMENT ON COLUMN ftstream.parked_change.attempts IS 'since every partition of the flow was past the change: until then what it lacks may still come';

COMMENT ON COLUMN ftstream.parked_change.reread IS 'somebody has had it tried again after it was dead, or its table was emptied since';

ALTER TABLE ftstream.parked_change ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ftstream.parked_change_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ftstream.receiver (
    name text NOT NULL,
    success_at timestamp with time zone,
    failure_at timestamp with time zone,
    error text DEFAULT ''::text NOT NULL
);

COMMENT ON TABLE ftstream.receiver IS 'When each receiver of alerts has last taken one, and when it has not';

CREATE TABLE ftstream.reconciled (
    table_name text NOT NULL,
    reconciled_at timestamp with time zone DEFAULT now() NOT NULL,
    how text NOT NULL
);

COMMENT ON TABLE ftstream.reconciled IS 'The tables whose every row here was captured, or handed over by `reconcile`: their flow may start';

CREATE TABLE ftstream.schema_migration (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE ftstream.setup_seen (
    table_name text NOT NULL,
    fingerprint text NOT NULL,
    seen_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE ftstream.setup_seen IS 'When the capture of a table was last seen to be as it should be, and its triggers and publications of then';

COMMENT ON COLUMN ftstream.setup_seen.fingerprint IS 'Which relation, triggers and publications (oid and xmin): another one says that something was changed since, and perhaps changed back';

CREATE TABLE ftstream.sync_log (
    logged_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    operation ftstream.operation,
    outcome ftstream.outcome NOT NULL,
    table_name text NOT NULL,
    entity_id text NOT NULL,
    topic text NOT NULL,
    kafka_partition integer,
    kafka_offset bigint,
    source_position bigint,
    source_time timestamp with time zone,
    lag_ms bigint,
    change jsonb,
    details jsonb
)
PARTITION BY RANGE (logged_at);

COMMENT ON TABLE ftstream.sync_log IS 'One row per change received, and another for what became of a parked one; partitioned by day';

COMMENT ON COLUMN ftstream.sync_log.operation IS 'null for a record that could not be read, and for a run';

COMMENT ON COLUMN ftstream.sync_log.kafka_offset IS 'null where nothing came through Kafka';

COMMENT ON COLUMN ftstream.sync_log.lag_ms IS 'from the commit at the source to the write here, in milliseconds';

COMMENT ON COLUMN ftstream.sync_log.change IS 'the change as it was captured, of flows captured by outbox: what a conflict lost is here';

COMMENT ON COLUMN ftstream.sync_log.details IS 'of a run: rows found, published, deleted, and seconds; of an edit that a run undoes: the row as it was edited';

CREATE TABLE ftstream.sync_log_default (
    logged_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    operation ftstream.operation,
    outcome ftstream.outcome NOT NULL,
    table_name text NOT NULL,
    entity_id text NOT NULL,
    topic text NOT NULL,
    kafka_partition integer,
    kafka_offset bigint,
    source_position bigint,
    source_time timestamp with time zone,
    lag_ms bigint,
    change jsonb,
    details jsonb
);

CREATE TABLE ftstream.sync_status (
    source text NOT NULL,
    entity_type text NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    last_synced_at timestamp with time zone,
    last_heartbeat_at timestamp with time zone,
    records_synced bigint DEFAULT 0 NOT NULL,
    records_failed bigint DEFAULT 0 NOT NULL,
    consecutive_failures integer DEFAULT 0 NOT NULL,
    sync_interval interval DEFAULT '00:01:00'::interval NOT NULL,
    next_sync_at timestamp with time zone,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    last_error text,
    CONSTRAINT sync_status_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'syncing'::text, 'synced'::text, 'failed'::text])))
);

COMMENT ON COLUMN ftstream.sync_status.last_heartbeat_at IS 'when the source''s newest heartbeat was written there: it travels the whole way through log, Connect and Kafka';

COMMENT ON COLUMN ftstream.sync_status.next_sync_at IS 'when a flow captured by batch runs next: null, or past, is at once';

COMMENT ON COLUMN ftstream.sync_status.last_error IS 'why the last run failed; null once one is done';

CREATE TABLE ftstream.turn (
    name text NOT NULL
);

COMMENT ON TABLE ftstream.turn IS 'Whoever does what a row names has it locked: `select ... for update`; nobody but ftstream''s roles can';

CREATE VIEW ftstream.v_sync_dashboard WITH (security_invoker='true') AS
 SELECT sync_status.source,
    sync_status.entity_type,
    sync_status.status,
    sync_status.last_synced_at,
    sync_status.records_synced,
    sync_status.records_failed,
    sync_status.consecutive_failures,
    sync_status.sync_interval,
    sync_status.next_sync_at,
        CASE
            WHEN (sync_status.consecutive_failures > 5) THEN 'CRITICAL'::text
            WHEN (sync_status.consecutive_failures > 2) THEN 'WARNING'::text
            WHEN (sync_status.last_synced_at IS NULL) THEN 'PENDING'::text
            WHEN (sync_status.last_synced_at < (now() - (sync_status.sync_interval * (2)::double precision))) THEN 'STALE'::text
            WHEN (sync_status.status = 'failed'::text) THEN 'ERROR'::text
            ELSE 'HEALTHY'::text
        END AS health_status,
    EXTRACT(epoch FROM (now() - sync_status.last_synced_at)) AS lag_seconds
   FROM ftstream.sync_status
  ORDER BY
        CASE
            WHEN (sync_status.consecutive_failures > 5) THEN 1
            WHEN (sync_status.consecutive_failures > 2) THEN 2
            WHEN (sync_status.status = 'failed'::text) THEN 3
            WHEN ((sync_status.last_synced_at IS NULL) OR (sync_status.last_synced_at < (now() - (sync_status.sync_interval * (2)::double precision)))) THEN 4
            ELSE 5
        END, sync_status.last_synced_at NULLS FIRST;

CREATE TABLE ftstream.wake_ups (
    worker text NOT NULL,
    way text NOT NULL,
    since timestamp with time zone NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    halted jsonb DEFAULT '{}'::jsonb NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT wake_ups_way_check CHECK ((way = ANY (ARRAY['realtime'::text, 'polling'::text])))
);

COMMENT ON TABLE ftstream.wake_ups IS 'What wakes the publisher of each worker: nothing depends on it but how soon a change leaves';

COMMENT ON COLUMN ftstream.wake_ups.worker IS 'host:pid; one that was killed stays for an hour';

COMMENT ON COLUMN ftstream.wake_ups.since IS 'by the worker''s clock';

COMMENT ON COLUMN ftstream.wake_ups.reason IS 'why it is polling';

COMMENT ON COLUMN ftstream.wake_ups.seen_at IS 'when the worker said so last; it does every 5 s';

COMMENT ON COLUMN ftstream.wake_ups.halted IS 'flows that it does not carry any more until somebody fixes them, with the reasons';

CREATE TABLE ftstream.watcher (
    one boolean DEFAULT true NOT NULL,
    holder text NOT NULL,
    until timestamp with time zone NOT NULL,
    CONSTRAINT watcher_one_check CHECK (one)
);

COMMENT ON TABLE ftstream.watcher IS 'Which watcher is active: another one takes over once its time has passed';

ALTER TABLE ONLY ftstream.sync_log ATTACH PARTITION ftstream.sync_log_default DEFAULT;

ALTER TABLE ONLY ftstream.activity_log
    ADD CONSTRAINT activity_log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ftstream.alert
    ADD CONSTRAINT alert_pkey PRIMARY KEY (code, subject, opened_at);

ALTER TABLE ONLY ftstream.applied_offset
    ADD CONSTRAINT applied_offset_pkey PRIMARY KEY (topic, kafka_partition);

ALTER TABLE ONLY ftstream.batch_source
    ADD CONSTRAINT batch_source_pkey PRIMARY KEY (flow, table_name);

ALTER TABLE ONLY ftstream.compared
    ADD CONSTRAINT compared_pkey PRIMARY KEY (one);

ALTER TABLE ONLY ftstream.displaced
    ADD CONSTRAINT displaced_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ftstream.flow_lag
    ADD CONSTRAINT flow_lag_pkey PRIMARY KEY (flow, worker);

ALTER TABLE ONLY ftstream.gap
    ADD CONSTRAINT gap_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ftstream.horizon
    ADD CONSTRAINT horizon_pkey PRIMARY KEY (table_name);

ALTER TABLE ONLY ftstream.last_write
    ADD CONSTRAINT last_write_pkey PRIMARY KEY (table_name, entity_id);

ALTER TABLE ONLY ftstream.lineage
    ADD CONSTRAINT lineage_pkey PRIMARY KEY (site);

ALTER TABLE ONLY ftstream.mute
    ADD CONSTRAINT mute_pkey PRIMARY KEY (code, subject);

ALTER TABLE ONLY ftstream.notifications
    ADD CONSTRAINT notifications_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ftstream.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ftstream.parked_change
    ADD CONSTRAINT parked_change_id_key UNIQUE (id);

ALTER TABLE ONLY ftstream.parked_change
    ADD CONSTRAINT parked_change_pkey PRIMARY KEY (topic, kafka_partition, kafka_offset);

ALTER TABLE ONLY ftstream.receiver
    ADD CONSTRAINT receiver_pkey PRIMARY KEY (name);

ALTER TABLE ONLY ftstream.reconciled
    ADD CONSTRAINT reconciled_pkey PRIMARY KEY (table_name);

ALTER TABLE ONLY ftstream.schema_migration
    ADD CONSTRAINT schema_migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY ftstream.setup_seen
    ADD CONSTRAINT setup_seen_pkey PRIMARY KEY (table_name);

ALTER TABLE ONLY ftstream.sync_status
    ADD CONSTRAINT sync_status_pkey PRIMARY KEY (source, entity_type);

ALTER TABLE ONLY ftstream.turn
    ADD CONSTRAINT turn_pkey PRIMARY KEY (name);

ALTER TABLE ONLY ftstream.wake_ups
    ADD CONSTRAINT wake_ups_pkey PRIMARY KEY (worker);

ALTER TABLE ONLY ftstream.watcher
    ADD CONSTRAINT watcher_pkey PRIMARY KEY (one);

CREATE UNIQUE INDEX gap_open ON ftstream.gap USING btree (table_name) WHERE (until IS NULL);

CREATE INDEX last_write_refused ON ftstream.last_write USING btree (table_name) WHERE (reserved > version);

CREATE INDEX last_write_tombstones ON ftstream.last_write USING btree (version) WHERE (operation = 'delete'::ftstream.operation);

CREATE UNIQUE INDEX notifications_unread ON ftstream.notifications USING btree (type, title) WHERE (read_at IS NULL);

CREATE INDEX outbox_transaction ON ftstream.outbox USING btree (transaction, entity_id) WHERE (transaction IS NOT NULL);

CREATE INDEX parked_change_due ON ftstream.parked_change USING btree (flow, next_attempt_at) WHERE (state = 'parked'::ftstream.parked_state);

CREATE INDEX parked_change_entity ON ftstream.parked_change USING btree (table_name, entity_id);

CREATE INDEX sync_log_entity ON ONLY ftstream.sync_log USING btree (entity_id);

CREATE INDEX sync_log_time ON ONLY ftstream.sync_log USING brin (logged_at);

CREATE INDEX sync_log_conflicts ON ONLY ftstream.sync_log USING btree (logged_at) WHERE (outcome = ANY (ARRAY['conflict_update_update'::ftstream.outcome, 'conflict_update_delete'::ftstream.outcome, 'conflict_delete_update'::ftstream.outcome, 'conflict_insert_insert'::ftstream.outcome]));

CREATE INDEX sync_log_default_entity_id_idx ON ftstream.sync_log_default USING btree (entity_id);

CREATE INDEX sync_log_default_logged_at_idx ON ftstream.sync_log_default USING brin (logged_at);

CREATE INDEX sync_log_default_logged_at_idx1 ON ftstream.sync_log_default USING btree (logged_at) WHERE (outcome = ANY (ARRAY['conflict_update_update'::ftstream.outcome, 'conflict_update_delete'::ftstream.outcome, 'conflict_delete_update'::ftstream.outcome, 'conflict_insert_insert'::ftstream.outcome]));

ALTER INDEX ftstream.sync_log_entity ATTACH PARTITION ftstream.sync_log_default_entity_id_idx;

ALTER INDEX ftstream.sync_log_time ATTACH PARTITION ftstream.sync_log_default_logged_at_idx;

ALTER INDEX ftstream.sync_log_conflicts ATTACH PARTITION ftstream.sync_log_default_logged_at_idx1;

CREATE CONSTRAINT TRIGGER ftstream_hand_over AFTER INSERT OR UPDATE OF version ON ftstream.last_write DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((new.transaction = pg_current_xact_id()) AND ((current_setting('ftstream.applying'::text, true) IS DISTINCT FROM 'on'::text) OR (SESSION_USER <> 'postgres'::name)))) EXECUTE FUNCTION ftstream.hand_over_noted();

ALTER TABLE ftstream.last_write ENABLE ALWAYS TRIGGER ftstream_hand_over;

ALTER TABLE ftstream.activity_log ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.alert ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.applied_offset ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.batch_source ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.compared ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.displaced ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.flow_lag ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.gap ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.horizon ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.last_write ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.lineage ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.mute ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.notifications ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.outbox ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.parked_change ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.receiver ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.reconciled ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.schema_migration ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.setup_seen ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.sync_log ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.sync_log_default ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.sync_status ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.turn ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.wake_ups ENABLE ROW LEVEL SECURITY;

ALTER TABLE ftstream.watcher ENABLE ROW LEVEL SECURITY;
