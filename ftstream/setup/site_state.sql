-- What a database holds of what ftstream needs: read from the catalogs, nothing is changed.

-- name: read_only
-- One snapshot, and no way to change anything.
set transaction isolation level repeatable read, read only

-- name: server
-- The server, and what the administrator may do there.
select current_setting('server_version_num')::integer as version,
       current_database() as database,
       current_user::text as admin,
       r.rolsuper as superuser,
       r.rolsuper or r.rolcreaterole as may_create_roles,
       r.rolsuper or r.rolreplication as may_replicate,
       has_database_privilege(current_database(), 'CREATE') as may_create,
       current_setting('wal_level') as wal_level,
       current_setting('max_replication_slots')::integer
           - (select count(*) from pg_replication_slots)::integer as free_slots,
       current_setting('max_wal_senders')::integer
           - (select count(*) from pg_stat_replication)::integer as free_senders,
       pg_is_in_recovery() as standby,
       pg_backend_pid() as backend_pid,
       (select pg_has_role(n.nspowner, 'USAGE') from pg_namespace n where n.nspname = 'ftstream') as owns_schema,
       array(select case t.typtype when 'd' then 'DOMAIN ' else 'TYPE ' end || format_type(t.oid, null) from pg_type t
             where t.typcategory = 'E'
               and not exists (select from pg_enum e where e.enumtypid = t.oid) order by 1) as labelless,
       current_setting('max_connections')::integer as max_connections,
       -- Of other roles' sessions nothing is seen but whose they are, and in which database.
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
           - (select count(*) from pg_stat_activity a
              where a.datid is not null and a.usesysid is not null
                and a.usesysid <> all (array(select s.oid from pg_roles s where s.rolname = any(%(roles)s))))::integer
           as free_connections
from pg_roles r where r.rolname = current_user

-- name: parameter_right
-- Who may set session_replication_role, and whether the administrator may pass that on (PostgreSQL 15).
select coalesce(bool_or(has_parameter_privilege(r.oid, 'session_replication_role', 'SET')), false) as may_set,
       has_parameter_privilege('session_replication_role', 'SET WITH GRANT OPTION') as may_grant
from pg_roles r where r.rolname = %(role)s

-- name: roles
-- The roles; `ours` are those that ftstream made, `elsewhere` says that other databases know them.
select r.rolname as name, r.rolcanlogin as login, r.rolsuper as superuser,
       r.rolreplication as replication, r.rolsuper or r.rolbypassrls as bypasses_policies,
       coalesce(shobj_description(r.oid, 'pg_authid') like 'ftstream %%', false) as ours,
       exists (
           select from pg_shdepend d
           where d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid and d.dbid <> 0
             and d.dbid <> (select b.oid from pg_database b where b.datname = current_database())
       ) as elsewhere,
       pg_has_role(r.oid, 'USAGE WITH ADMIN OPTION') as administered,
       pg_has_role(r.oid, 'USAGE') as inherited, r.rolconnlimit as connection_limit,
       array(select m.rolname::text from pg_auth_members a join pg_roles m on m.oid = a.member
             -- Who looks need not be who has set it up, and owns ftstream's schema.
             where a.roleid = r.oid and m.rolname <> current_user
               and m.oid <> all (array(select n.nspowner from pg_namespace n where n.nspname = 'ftstream'))
             order by 1) as members
from pg_roles r where r.rolname = any(%(roles)s)

-- name: role_settings
-- What these roles have set in this database, which wins over what they have everywhere.
select r.rolname as role, json_object_agg(lower(split_part(c.entry, '=', 1)),
                                          substr(c.entry, strpos(c.entry, '=') + 1)) as settings
from pg_db_role_setting s
join pg_roles r on r.oid = s.setrole
join pg_database d on d.oid = s.setdatabase and d.datname = current_database(),
     unnest(s.setconfig) as c(entry)
where r.rolname = any(%(roles)s) group by r.rolname

-- name: tables
-- The tables that exist, with what capturing, guarding and granting depend on.
select t.name,
       c.relkind::text as kind,
       c.relpersistence::text as persistence,
       c.relreplident::text as replica_identity,
       c.relrowsecurity as row_security,
       c.relforcerowsecurity as forced,
       pg_get_userbyid(c.relowner)::text as owner,
       pg_has_role(c.relowner, 'USAGE') as owned,
       array(select r.rolname::text from pg_roles r
             where r.rolname = any(%(roles)s) and pg_has_role(r.oid, c.relowner, 'USAGE')) as owner_roles,
       array(select a.attname::text from pg_index i, pg_attribute a
             where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid and a.attnum = any(i.indkey)) as primary_key,
       array(select a.attname::text from pg_index i, pg_attribute a
             where i.indrelid = c.oid and a.attrelid = c.oid and a.attnum = any(i.indkey)
               and case c.relreplident when 'd' then i.indisprimary
                                       when 'i' then i.indisreplident else false end) as logged_columns,
       array(select a.attname::text from pg_attribute a
             join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
             where a.attrelid = c.oid and a.attgenerated = ''
               -- pg_get_expr() would wait for whoever has locked the table.
               and d.adbin::text ~ '^\{CONST') as literal_defaults,
       array(select a.attname::text from pg_index i, pg_attribute a
             where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indnkeyatts = 1
               and i.indpred is null and i.indexprs is null
               and a.attrelid = c.oid and a.attnum = i.indkey[0]) as unique_columns,
       array(select a.attname::text from pg_attribute a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               and a.attnotnull and not a.atthasdef and a.attidentity = '') as required
from unnest(%(tables)s::text[]) as t(name)
join pg_class c on c.oid = to_regclass(t.name)

-- name: rights
-- Which of these rights are held, in whatever way; `public` says that everybody holds them (role 0).
select w.role, w.kind, w.object, w.privilege, bool_or(r.oid = 0) as public
from json_to_recordset(%(rights)s::json) as w(role text, kind text, object text, privilege text)
cross join lateral (select p.oid from pg_roles p where p.rolname = w.role union all select 0) as r
where case w.kind
    when 'database' then has_database_privilege(
        r.oid, (select d.oid from pg_database d where d.datname = current_database()), w.privilege)
    when 'schema' then has_schema_privilege(
        r.oid, (select n.oid from pg_namespace n where n.nspname = w.object), w.privilege)
    when 'table' then has_table_privilege(r.oid, to_regclass(w.object)::oid, w.privilege)
    when 'function' then has_function_privilege(r.oid, to_regprocedure(w.object)::oid, w.privilege)
end
group by w.role, w.kind, w.object, w.privilege

-- name: policies
-- ftstream's policies.
select n.nspname || '.' || c.relname as "table", p.polname::text as name,
       r.rolname::text as role,
       case p.polcmd when 'r' then 'SELECT' when '*' then 'ALL' else p.polcmd::text end as command
from pg_policy p
join pg_class c on c.oid = p.polrelid
join pg_namespace n on n.oid = c.relnamespace
cross join lateral unnest(p.polroles) as u(role)
left join pg_roles r on r.oid = u.role
where p.polname like 'ftstream\_%%'

-- name: triggers
-- ftstream's triggers; `always` says that one fires in every session, unless ftstream itself writes.
-- `events`: by row 1, before 2, insert 4, delete 8, update 16, truncate 32.
select n.nspname || '.' || c.relname as "table", t.tgname::text as name,
       t.tgenabled = 'A' and t.tgqual is not null as always, t.tgtype::integer as events,
       t.tgfoid::regprocedure::text as function,
       (string_to_array(encode(t.tgargs, 'escape'), '\000'))[1:t.tgnargs] as arguments,
       coalesce(substring(pg_get_triggerdef(t.oid) from ' WHEN \((.*)\) EXECUTE FUNCTION '), '') as condition
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
where t.tgname like 'ftstream\_%%' and not t.tgisinternal

-- name: own_triggers
-- Triggers and rules of these tables that are not ftstream's, and whether they run for what ftstream writes.
select n.nspname || '.' || c.relname as "table", t.name, t.enabled in ('A', 'R') as runs
from (select tgrelid as relation, tgname::text as name, tgenabled as enabled from pg_trigger
      where not tgisinternal and tgparentid = 0 and tgname not like 'ftstream\_%%'
      union all
      select ev_class, rulename::text, ev_enabled from pg_rewrite where ev_type <> '1') as t
join pg_class c on c.oid = t.relation
join pg_namespace n on n.oid = c.relnamespace
where coalesce(pg_partition_root(c.oid), c.oid) in (
          select to_regclass(w.name) from unnest(%(tables)s::text[]) as w(name))
  and t.enabled <> 'D'
order by 1, 2

-- name: reached
-- What foreign keys lead to from these tables: what their rows refer to, and that in turn, and what would have to let
-- go of them, and that in turn. Of tables of other roles only the key to the first is told.
with recursive keys as (
    select k.conname::text as key, k.conrelid as child, k.confrelid as parent, k.confdeltype as on_delete,
           c.relowner = p.relowner as trusted
    from pg_constraint k
    join pg_class c on c.oid = k.conrelid
    join pg_class p on p.oid = k.confrelid
    where k.contype = 'f' and k.conparentid = 0),
start(id) as (
    select c.oid from unnest(%(tables)s::text[]) as t(name) join pg_class c on c.oid = to_regclass(t.name)),
up(id) as (select id from start union select k.parent from keys k join up on k.child = up.id where k.trusted),
down(id) as (
    select id from start
    union select k.child from keys k join down on k.parent = down.id where k.trusted and k.on_delete = 'c'),
found as (
    select k.parent as id, 'parent' as way, k.trusted, k.key from keys k join up on k.child = up.id
    union select k.child, 'child', k.trusted, k.key from keys k join down on k.parent = down.id)
select distinct on (f.id, f.way) format('%%I.%%I', n.nspname, c.relname) as "table", f.way, f.trusted, f.key,
       pg_get_userbyid(c.relowner)::text as owner
from found f join pg_class c on c.oid = f.id join pg_namespace n on n.oid = c.relnamespace
order by f.id, f.way, f.trusted desc, f.key

-- name: used_schemas
-- The schemas of what policies of these tables call, and of their columns' types, of which the administrator may grant
-- the use.
with used(relation, schema, policy) as (
    select p.polrelid, f.pronamespace, true from pg_policy p
    join pg_depend d on (d.classid, d.objid, d.refclassid) = ('pg_policy'::regclass, p.oid, 'pg_proc'::regclass)
    join pg_proc f on f.oid = d.refobjid
    union
    select a.attrelid, t.typnamespace, false from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    where a.attnum > 0 and not a.attisdropped)
select n.nspname || '.' || c.relname as "table", s.nspname::text as schema, u.policy
from used u
join pg_class c on c.oid = u.relation
join pg_namespace n on n.oid = c.relnamespace
join pg_namespace s on s.oid = u.schema
where n.nspname || '.' || c.relname = any(%(tables)s) and s.nspname not in ('pg_catalog', n.nspname)
  and has_schema_privilege(s.oid, 'USAGE WITH GRANT OPTION')

-- name: misowned
-- What of ftstream's is not this role's, or would run as it with a path that others can put something into.
select p.oid::regprocedure::text as name from pg_proc p
where p.pronamespace = to_regnamespace('ftstream')
  and (p.prosecdef <> (pg_get_userbyid(p.proowner) = %(role)s)
       or p.prosecdef and not coalesce('search_path=pg_catalog, pg_temp' = any(p.proconfig), false)
       or not p.prosecdef and exists (select from pg_roles r where r.rolname = %(role)s
                                      and not has_function_privilege(r.oid, p.oid, 'EXECUTE')))
union all
select c.oid::regclass::text from pg_class c
where c.relnamespace = to_regnamespace('ftstream') and c.relkind in ('r', 'p') and c.relname like 'sync\_log%%'
  and pg_get_userbyid(c.relowner) <> %(role)s
order by 1

-- name: restricted
-- Tables of which a restrictive policy may hide rows from one of these roles, whatever other policies it has.
select distinct n.nspname || '.' || c.relname as "table", r.rolname::text as role
from pg_policy p
join pg_class c on c.oid = p.polrelid and c.relrowsecurity
join pg_namespace n on n.oid = c.relnamespace
join pg_roles r on r.rolname = any(%(roles)s) and not (r.rolsuper or r.rolbypassrls)
where not p.polpermissive and n.nspname || '.' || c.relname = any(%(tables)s)
  and (c.relforcerowsecurity or not pg_has_role(r.oid, c.relowner, 'USAGE'))
  and exists (select from unnest(p.polroles) as u(id) where u.id = 0 or pg_has_role(r.oid, u.id, 'MEMBER'))
order by 1, 2

-- name: open_schemas
-- Schemas on this role's path in which others may make functions that come before PostgreSQL's own.
select n.nspname::text as schema, string_agg(g.name, ', ' order by g.name) as creators
from pg_namespace n
cross join lateral (
    select distinct case when a.grantee = 0 then 'PUBLIC' else pg_get_userbyid(a.grantee)::text end as name
    from aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
    left join pg_roles r on r.oid = a.grantee
    where a.privilege_type = 'CREATE' and a.grantee <> n.nspowner and not coalesce(r.rolsuper, false)
      and pg_get_userbyid(a.grantee) <> all (array[current_user::text, 'pg_database_owner'])) g
where n.nspname = any(array['public', current_user::text, %(role)s]) group by 1 order by 1

-- name: unfired
-- Triggers of these tables that somebody has switched off, or left to sessions with triggers on, for a partition alone.
select n.nspname || '.' || c.relname as "table", t.tgname::text as name, t.tgrelid::regclass::text as partition
from pg_trigger t
join pg_class c on c.oid = pg_partition_root(t.tgrelid)
join pg_namespace n on n.oid = c.relnamespace
where t.tgname like 'ftstream\_%%' and t.tgparentid <> 0 and t.tgenabled <> 'A'
  and n.nspname || '.' || c.relname = any(%(tables)s)

-- name: publications
-- These publications; prattrs (PostgreSQL 15) by way of JSON, so that 14 reads the statement too.
select p.pubname::text as name,
       pg_has_role(p.pubowner, 'USAGE') as owned,
       p.puballtables as all_tables,
       p.pubviaroot and p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate as whole,
       coalesce((
           select json_object_agg(n.nspname || '.' || c.relname, (
               select json_agg(a.attname order by a.attname) from pg_attribute a
               where a.attrelid = c.oid
                 and to_jsonb(r) -> 'prattrs' @> to_jsonb(a.attnum)))
           from pg_publication_rel r
           join pg_class c on c.oid = r.prrelid
           join pg_namespace n on n.oid = c.relnamespace
           where r.prpubid = p.oid), '{}') as tables,
       array(select n.nspname || '.' || c.relname
             from pg_publication_rel r
             join pg_class c on c.oid = r.prrelid
             join pg_namespace n on n.oid = c.relnamespace
             where r.prpubid = p.oid and to_jsonb(r) ->> 'prqual' is not null) as filtered
from pg_publication p where p.pubname = any(%(names)s)

-- name: slots
-- These replication slots.
select slot_name::text as name, plugin::text, database::text, active,
       coalesce(wal_status, '') = 'lost' as lost, coalesce(wal_status, '') = 'unreserved' as losing
from pg_replication_slots where slot_name = any(%(names)s)

-- name: peek_patience
-- There may be much in the log that is none of the publication's.
set local statement_timeout = '10s'

-- name: peek
-- Decodes a change as the connector would, and leaves it there.
select count(*) from pg_logical_slot_peek_binary_changes(
    %(slot)s, null, 1, 'proto_version', '1', 'publication_names', %(publication)s)

-- name: seen_exists
-- Whether there is a record of when capture was well.
select to_regclass('ftstream.setup_seen') is not null

-- name: status_exists
-- Whether there is a sync_status.
select to_regclass('ftstream.sync_status') is not null

-- name: status_rows
-- The rows of sync_status.
select source, entity_type from ftstream.sync_status
