-- What rows refer to, and what refers to them: triggers are off while ftstream applies.

-- name: require_parents
-- All that the rows written refer to is here.
select ftstream.require_parents(%(table)s::regclass, array(
    select m.id from json_to_recordset(%(messages)s) as m(id text, version bigint, site ftstream.site)
    join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = (%(name)s, m.id, m.version, m.site)))

-- name: release_children
-- What refers to the rows that are to be deleted lets go of them, as its foreign key says.
with won as (
    select m.id, m.gone
    from json_to_recordset(%(messages)s) as m(id text, version bigint, site ftstream.site, gone boolean)
    join ftstream.last_write w on (w.table_name, w.entity_id, w.version, w.site) = (%(name)s, m.id, m.version, m.site))
select ftstream.release_children(
    %(table)s::regclass, array(select id from won where gone), %(carried)s::text[]::regclass[],
    array(select id from won where not gone))

-- name: would_release
-- Fails if something refers to these rows that does not let go of them.
select ftstream.release_children(%(table)s::regclass, %(ids)s::text[], '{}'::regclass[])

-- name: parents_of
-- What a row refers to: table, columns and key.
select f.parent_name, f.names,
       (select array_agg(%(image)s::jsonb ->> c.attname order by u.n)
        from unnest(k.conkey) with ordinality as u(attnum, n)
        join pg_attribute c on (c.attrelid, c.attnum) = (k.conrelid, u.attnum)) as key
from ftstream.foreign_keys f join pg_constraint k on k.conrelid = f.child and k.conname = f.name and k.contype = 'f'
where f.child = %(parent)s::regclass

-- name: missing_parents
-- What a change's row refers to that is not here.
select ftstream.missing_parents(%(target)s::regclass, %(image)s::jsonb)::text

-- name: guarded
-- Whether all of these tables refuse edits.
select bool_and(exists (
    select from pg_trigger t
    where t.tgrelid = to_regclass(n.name) and t.tgfoid = to_regprocedure('ftstream.refuse_edit()') and t.tgenabled = 'A'))
from unnest(%(tables)s::text[]) as n(name)

-- name: parent_image
-- A row that others refer to, at its source.
select ftstream.parent_image(%(parent)s::regclass, %(columns)s::text[], %(key)s::text[])::text

-- name: require_exact
-- Its values are held here as they are at its source.
select ftstream.require_exact(%(parent)s::regclass, %(image)s::jsonb)

-- name: carry_parent
-- Puts it here, if nothing is in its way.
select ftstream.carry_parent(%(parent)s::regclass, %(image)s::jsonb)

-- name: hasten
-- Has a run begin at once, since another flow waits for a row of it; once a minute at most.
update ftstream.sync_status set next_sync_at = clock_timestamp()
where source = %(flow)s and entity_type = %(entity_type)s and status = 'synced'
  and next_sync_at > clock_timestamp() and last_synced_at < clock_timestamp() - interval '1 minute'
