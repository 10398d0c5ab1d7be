-- What `init` makes and `remove` takes away, besides the migrations.

-- name: create_role
-- A role of ftstream's own.
create role {role} with {options} password {password}

-- name: create_role_if_missing
-- The same for a file, which holds no password: `init` sets it afterwards.
do $ftstream_role$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = {name}) then
        create role {role} with {options};
        comment on role {role} is {comment};
    end if;
end
$ftstream_role$

-- name: alter_role
-- Gives a role of ftstream's own what it lacks.
alter role {role} with {options}

-- name: set_password
-- Gives a role of ftstream's own the password of the settings.
alter role {role} with password {password}

-- name: pin_setting
-- In this database the role has this, whatever the database, the server or the role itself has elsewhere.
alter role {role} in database {database} set {setting} to {value}

-- name: unpin_setting
-- Takes that back.
alter role {role} in database {database} reset {setting}

-- name: comment_role
-- The mark by which `remove` knows the roles that `init` made.
comment on role {role} is {comment}

-- name: grant
-- Grants rights on one object.
grant {privileges} on {kind} {object} to {role}

-- name: revoke
-- Takes rights on one object back.
revoke {privileges} on {kind} {object} from {role}

-- name: grant_replica
-- Lets a role switch triggers off in its own transactions.
grant set on parameter session_replication_role to {role}

-- name: replica_at_login
-- The same where only the setting may be given, as on Supabase: its sessions begin with triggers off.
alter role {role} set session_replication_role = replica

-- name: join_role
-- Has a member give things to the role.
grant {role} to {member}

-- name: give_functions
-- What runs with other rights than its caller's runs with this role's, and nothing else is its own: it could have the
-- rest do what it likes with an administrator's rights. The log's partitions are made and dropped so, too.
do $ftstream_definer$
declare
    given record;
begin
    for given in
        select p.oid::regprocedure as name, p.prosecdef as definer, p.proowner as owner from pg_catalog.pg_proc p
        where p.pronamespace = 'ftstream'::regnamespace
    loop
        if given.definer <> (given.owner = {role}::regrole) then
            execute format('alter function %s owner to %I', given.name,
                           case when given.definer then {role} else current_user end);
        end if;
        if not given.definer then
            execute format('grant execute on function %s to %I', given.name, {role});
        end if;
    end loop;
    for given in
        select p.oid::regprocedure as name from pg_catalog.pg_proc p
        where p.pronamespace = 'ftstream'::regnamespace and p.prosecdef
          and not coalesce('search_path=pg_catalog, pg_temp' = any(p.proconfig), false)
    loop
        execute format('alter function %s set search_path = pg_catalog, pg_temp', given.name);
    end loop;
    for given in
        select c.oid::regclass as name from pg_catalog.pg_class c
        where c.relnamespace = 'ftstream'::regnamespace and c.relkind in ('r', 'p')
          and c.relname like 'sync\_log%' and c.relowner <> {role}::regrole
    loop
        execute format('alter table %s owner to %I', given.name, {role});
    end loop;
end
$ftstream_definer$

-- name: revoke_replica
-- Takes that back.
revoke set on parameter session_replication_role from {role}

-- name: drop_policy
-- Removes a policy.
drop policy if exists {name} on {table}

-- name: policy_select
-- Every row may be read.
create policy {name} on {table} for select to {role} using (true)

-- name: policy_all
-- Every row may be read and written.
create policy {name} on {table} for all to {role} using (true) with check (true)

-- name: create_publication
-- What the log tells of the flow: these tables.
create publication {name} for table {tables}
    with (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)

-- name: set_publication_tables
-- These tables and no others.
alter publication {name} set table {tables}

-- name: set_publication_options
-- Every kind of change; a partitioned table as one.
alter publication {name} set
    (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)

-- name: drop_publication
-- Removes the publication.
drop publication {name}

-- name: create_realtime
-- What Supabase Realtime reads; a project of Supabase has it.
do $ftstream_realtime$
begin
    if not exists (select from pg_catalog.pg_publication where pubname = {publication}) then
        create publication {name};
    end if;
end
$ftstream_realtime$

-- name: add_to_realtime
-- One table more, unless it is there.
do $ftstream_realtime$
begin
    if not exists (select from pg_catalog.pg_publication_rel r
                   join pg_catalog.pg_publication p on p.oid = r.prpubid
                   where p.pubname = {publication} and r.prrelid = {regclass}::pg_catalog.regclass) then
        alter publication {name} add table {table};
    end if;
end
$ftstream_realtime$

-- name: drop_from_realtime
-- One table less; the publication is Supabase's.
alter publication {name} drop table {table}

-- name: create_guard
-- Refuses every writer but ftstream. Each row: a foreign key that is looked after when its parent goes
-- updates none here as long as nothing refers to it.
create or replace trigger {trigger}
    before insert or update or delete on {table} for each row
    when (current_setting('ftstream.applying', true) is distinct from 'on' or session_user <> {writer})
    execute function {function}({arguments})

-- name: create_capture
-- Notes each change of every writer but ftstream.
create or replace trigger {trigger}
    after insert or update or delete on {table} for each row
    when (current_setting('ftstream.applying', true) is distinct from 'on' or session_user <> {writer})
    execute function {function}({arguments})

-- name: create_hand_over
-- Hands what was noted to the outbox when its transaction commits. What is no capture (a change that is applied, an
-- entity that is handed over again) is no transaction's here. No constraint trigger can be replaced; in one statement
-- there is no moment without it.
do $ftstream_hand_over$
begin
    drop trigger if exists {trigger} on {table};
    create constraint trigger {trigger}
        after insert or update of version on {table}
        deferrable initially deferred for each row
        when (new.transaction = pg_current_xact_id()
              and (current_setting('ftstream.applying', true) is distinct from 'on' or session_user <> {writer}))
        execute function {function}({arguments});
    alter table {table} enable always trigger {trigger};
end
$ftstream_hand_over$

-- name: create_truncate
-- Refuses TRUNCATE of every writer but ftstream.
create or replace trigger {trigger}
    before truncate on {table} for each statement
    when (current_setting('ftstream.applying', true) is distinct from 'on' or session_user <> {writer})
    execute function {function}({arguments})

-- name: create_row_by_row
-- Never fires. That it is there has COPY log each row by itself, with a position that a connector can resume from.
create or replace trigger {trigger}
    before insert on {table} for each row when (false)
    execute function {function}({arguments})

-- name: enable_trigger
-- Also in sessions that have switched triggers off.
alter table {table} enable always trigger {trigger}

-- name: drop_trigger
-- Takes a trigger of ftstream's away.
drop trigger {trigger} on {table}

-- name: add_status
-- The first rows of sync_status.
insert into ftstream.sync_status (source, entity_type) values {rows} on conflict do nothing

-- name: drop_status
-- The flow's rows of sync_status, and what its runs have read.
with gone as (delete from ftstream.batch_source where flow = {flow})
delete from ftstream.sync_status where source = {flow}

-- name: drop_offsets
-- How far the flow's topics were applied: new topics begin at 0.
delete from ftstream.applied_offset where topic = any({topics}::text[])

-- name: drop_parked
-- What was parked of the flow's topics.
delete from ftstream.parked_change where topic = any({topics}::text[])

-- name: forget_gaps
-- When the capture of these tables was well, and when it was not.
with gone as (delete from ftstream.gap where table_name = any({tables}::text[]))
delete from ftstream.setup_seen where table_name = any({tables}::text[])

-- name: drop_outbox
-- What was to be published of the flow's tables.
delete from ftstream.outbox where table_name = any({tables}::text[])

-- name: drop_last_write
-- Who wrote the entities of the flow's tables last.
delete from ftstream.last_write where table_name = any({tables}::text[])

-- name: drop_horizon
-- Up to where the deletes of the flow's tables are forgotten.
delete from ftstream.horizon where table_name = any({tables}::text[])

-- name: drop_reconciled
-- The other site may lack rows of these tables.
delete from ftstream.reconciled where table_name = any({tables}::text[])

-- name: forget_uncaptured
-- The other site may lack rows of a table that was not captured until now.
delete from ftstream.reconciled
where table_name = {name} and not exists (
    select from pg_trigger t
    where t.tgrelid = {table}::regclass and t.tgname = 'ftstream_capture' and t.tgenabled = 'A')

-- name: note_empty
-- A table that is empty when its capture begins lacks nothing on the other site; nobody writes it now.
insert into ftstream.reconciled (table_name, how)
select {name}, 'empty when its capture began' where not exists (select from {table})
on conflict do nothing

-- name: see_all
-- Rows that are hidden would look like none: then it is an error.
set local row_security = off

-- name: create_slot
-- The flow's position in the log, from here on.
select pg_create_logical_replication_slot({slot}, 'pgoutput')

-- name: drop_slot
-- Gives the position in the log up, and the log it holds back. A connector that reads it in vain has it for a moment,
-- again and again.
do $ftstream_slot$
begin
    for attempt in 1..50 loop
        begin
            perform pg_drop_replication_slot({slot});
            return;
        exception when object_in_use then
            perform pg_sleep(0.1);
        end;
    end loop;
    perform pg_drop_replication_slot({slot});
end
$ftstream_slot$

-- name: drop_schema
-- Everything ftstream knows.
drop schema ftstream cascade

-- name: drop_role
-- Removes a role that `init` made.
drop role {role}

-- name: begin
-- Altering a table waits for those who use it, and others queue behind; so not for long. And what PostgreSQL has comes
-- before what others may have put into a schema of the path.
select set_config('lock_timeout', '10s', true), set_config('search_path', 'pg_catalog, pg_temp', true)

-- name: slot_patience
-- A slot waits until every transaction that was running has ended.
set statement_timeout = '60s'
