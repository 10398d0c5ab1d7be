-- The migrations of ftstream's own schema, and the record of them.

-- name: bootstrap
-- The schema, and the table that records which migrations it has seen.
create schema if not exists ftstream;
create table if not exists ftstream.schema_migration (
    version    integer     primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default now()
);
alter table ftstream.schema_migration enable row level security

-- name: lock
-- One migrates at a time, where ftstream has been before; the lock is the transaction's, since a pooler keeps no session.
select from ftstream.turn where name = 'schema' for update

-- name: first_lock
-- The same before there is anything of ftstream's: any login could hold this one.
select pg_advisory_xact_lock(hashtext('ftstream.schema_migration'))

-- name: turns
-- Whether ftstream has been here before.
select to_regclass('ftstream.turn') is not null

-- name: recorded
-- Whether the record of migrations exists.
select to_regclass('ftstream.schema_migration') is not null

-- name: applied
-- The migrations this database has seen.
select version, name, checksum from ftstream.schema_migration order by version

-- name: record
-- Records a migration as applied.
insert into ftstream.schema_migration (version, name, checksum) values ({version}, {name}, {checksum})
on conflict (version) do update set checksum = excluded.checksum, applied_at = now()

-- name: fold
-- A database that has all migrations from before the baseline has what it makes: its record says so.
do $ftstream_fold$
declare
    older constant bigint := (select count(*) from ftstream.schema_migration where version < {baseline});
begin
    if older not in (0, {count}) then
        raise exception 'the schema ftstream was made by an older version, and not brought up to date'
            using hint = 'Run `ftstream init` of the version before this one first.';
    end if;
    if older > 0 then
        delete from ftstream.schema_migration where version < {baseline};
        {records};
    end if;
end
$ftstream_fold$

-- name: once
-- Applies and records a migration unless that was done: for a file that any database may run. Functions are made
-- `again` where they differ.
do $ftstream_once$
begin
    if not exists (select from ftstream.schema_migration where version = {version} and (checksum = {checksum} or not {again})) then
        execute {script};
        {record};
    end if;
end
$ftstream_once$
