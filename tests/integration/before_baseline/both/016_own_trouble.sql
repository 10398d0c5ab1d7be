-- Identity columns: a row that no flow carries, and that others refer to, comes with its numbers.

-- Puts a row here that others refer to and that no flow carries, if nothing is in its way.
create or replace function ftstream.carry_parent(parent_table regclass, image jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set row_security = 'off' as $$
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
end $$;

-- Aborts where a message nests so deep that the other site could not read it: PostgreSQL's reader of JSON goes as
-- deep as max_stack_depth lets it, and a row may be just within it where a message around the row is not. A
-- hundred levels are to spare. Few messages have so many brackets; of those that have, each column is tried.
create function ftstream.require_readable(target regclass, entity text, message text) returns void
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
