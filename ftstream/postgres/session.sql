-- What a transaction of ftstream's begins with.

-- name: exact_text
-- Values as text that every server reads alike.
select set_config('datestyle', 'ISO, YMD', true), set_config('intervalstyle', 'postgres', true),
       set_config('timezone', 'UTC', true), set_config('extra_float_digits', '1', true),
       set_config('bytea_output', 'hex', true), set_config('lc_monetary', 'C', true),
       -- And read alike: what a cast from text makes of NULL in an array, of a part of a document, of a backslash.
       set_config('array_nulls', 'on', true), set_config('xmloption', 'content', true),
       set_config('standard_conforming_strings', 'on', true), set_config('transform_null_equals', 'off', true),
       set_config('quote_all_identifiers', 'off', true)

-- name: own_names
-- Behind a transaction pooler the session may hold what another client has SET there: names of types
-- and operators mean what the role's own search_path says.
set local search_path to default

-- name: safe_names
-- What PostgreSQL has comes first and last: a schema that others may write to could hold functions that fit better.
set local search_path = pg_catalog, pg_temp

-- name: triggers_off
-- Triggers do not run until the transaction ends. Supabase lifts the plain SET statement only, not set_config(); and
-- a role that has it from its login need not set it, and may not.
do $ftstream_replica$
begin
    if current_setting('session_replication_role') <> 'replica' then
        set local session_replication_role = replica;
    end if;
end
$ftstream_replica$
