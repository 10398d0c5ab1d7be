-- Capture by outbox: one message a row and transaction, as the transaction leaves the row. A trigger notes each write in
-- last_write, and one on last_write hands the row over when the transaction commits. (One that is deferred on the
-- user's table would let no ALTER TABLE follow in the transaction; a message a statement told the other site of values
-- that nobody has committed, such as the temporary one of two rows that swap a unique value.)

-- Every function here belongs to a role that has no login, and rights on the flows' tables and on what is reached from
-- them alone (setup/rights.py): where one runs with more than its caller has, it runs with that. What it is given
-- to look at is checked, and pg_temp comes last in its path, since anybody can put types and tables there.

-- Who PostgREST acts for, from the token's own claims: what lies deeper (user_metadata) the user may set.
create or replace function ftstream.claimed(claims text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(claims, '') = '' then
        return null;
    end if;
    return coalesce(nullif(claims::jsonb ->> 'email', ''), nullif(claims::jsonb ->> 'sub', ''));
exception when invalid_text_representation then
    return null;  -- somebody has set it to what is no token
end $$;
revoke all on function ftstream.claimed(text) from public;

-- Who writes: the user of PostgREST's login, since nobody else proves whom a token was given to; else the login itself,
-- with whom it says to act for before it. `named`: somebody is.
create or replace function ftstream.author_of(login name, claims text, said text, out author text, out named boolean)
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    author := case when login = 'authenticator' then ftstream.claimed(claims) end;
    if author is null and said <> '' then
        author := left(said, 200) || ' (' || login || ')';
    end if;
    named := author is not null;
    author := coalesce(author, login);
end $$;
revoke all on function ftstream.author_of(name, text, text) from public;

-- Tells whoever listens of a write (guidelines 5.2), in the writer's transaction. PostgreSQL prepares none that notifies,
-- and its messages hold less than 8,000 bytes.
create or replace function ftstream.announce(channel text, name text, written ftstream.operation, entity text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
revoke all on function ftstream.announce(text, text, ftstream.operation, text) from public;

-- Aborts if the image of a row is larger than what Kafka is given.
create or replace function ftstream.require_size(target regclass, entity text, bytes integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if bytes > 15728640 then
        raise exception '% % has % bytes: a row of over 15 MiB cannot be carried to the other site',
            target, entity, bytes using errcode = 'program_limit_exceeded';
    end if;
end $$;
revoke all on function ftstream.require_size(regclass, text, integer) from public;

-- Aborts where a message nests so deep that the other site could not read it: PostgreSQL's reader of JSON goes as
-- deep as max_stack_depth lets it, and a row may be just within it where a message around the row is not. A
-- hundred levels are to spare. Few messages have so many brackets; of those that have, each column is tried.
create or replace function ftstream.require_readable(target regclass, entity text, message text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
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
revoke all on function ftstream.require_readable(regclass, text, text) from public;

-- Hands an entity as it is here to the outbox: its last write, and its row, null if it is gone. `more` is what the
-- message says besides, or otherwise.
create or replace function ftstream.hand_over(
    here ftstream.site, target regclass, entity text, written ftstream.operation, version bigint, author text,
    image jsonb, json_nulls text[], more jsonb default '{}'
) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
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
revoke all on function ftstream.hand_over(
    ftstream.site, regclass, text, ftstream.operation, bigint, text, jsonb, text[], jsonb) from public;

-- Fires for each row that somebody else than ftstream writes, in the writer's own transaction, and notes the
-- write. Should it fail, the write fails with it: there is no silent gap.
-- Arguments: site, qualified table, key column, excluded columns; among those `notify:CHANNEL`, which no column is.
create or replace function ftstream.capture() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = '1' set bytea_output = 'hex' as $$
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
end $$;
revoke all on function ftstream.capture() from public;

-- Fires when a transaction commits, once for each write that was noted, and hands the row over as it now is: for
-- the last one of each row. If somebody has SET CONSTRAINTS ALL IMMEDIATE, it fires for each at once.
create or replace function ftstream.hand_over_noted() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set intervalstyle = 'postgres' set timezone = 'UTC'
set extra_float_digits = '1' set bytea_output = 'hex' as $$
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
end $$;
revoke all on function ftstream.hand_over_noted() from public;

-- Argument: the flow. Rows that go at once leave no trace of which they were.
create or replace function ftstream.refuse_truncate() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '%.% is synchronised row by row (flow %): TRUNCATE is refused',
        tg_table_schema, tg_table_name, tg_argv[0]
        using errcode = 'object_not_in_prerequisite_state', hint = format('DELETE FROM %I.%I', tg_table_schema, tg_table_name);
end $$;
revoke all on function ftstream.refuse_truncate() from public;

-- Rows of a COPY that share a position in the log are lost, if a connector restarts among them: Debezium 3.6 loses
-- the rest of the page, 3.7.0 does so after the page's first row. `init` puts a trigger on what Debezium captures
-- that never fires: where there is one before each row, COPY logs each row by itself.
create or replace function ftstream.log_row_by_row() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    return new;
end $$;
revoke all on function ftstream.log_row_by_row() from public;
