-- Makes a plain cluster resemble Supabase's roles; run in database postgres by supabase_admin,
-- the one superuser. Can run again. docker/compose.yaml runs it too, so it is plain SQL.

do $$
declare
    wanted text;
begin
    foreach wanted in array array['postgres', 'anon', 'authenticated', 'service_role'] loop
        if to_regrole(wanted) is null then
            execute format('create role %I', wanted);
        end if;
    end loop;
end
$$;

-- On Supabase the user's own administrator is not a superuser: what works here works there.
alter role postgres with login createrole createdb replication bypassrls;
alter role service_role with nologin bypassrls;
grant anon, authenticated, service_role to postgres with admin option;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres;

alter database postgres owner to postgres;
alter schema public owner to postgres;
grant usage on schema public to anon, authenticated, service_role;

-- Supabase lets postgres SET session_replication_role through its supautils library. PostgreSQL 15
-- grants the same; before it only a superuser may, so on 14 the stand-in is less strict than Supabase.
do $$
begin
    if current_setting('server_version_num')::int >= 150000 then
        execute 'grant set on parameter session_replication_role to postgres';
    else
        alter role postgres with superuser;
    end if;
end
$$;

-- Both are trusted extensions: created and owned by postgres, as a Supabase user would.
set role postgres;
create extension if not exists citext;
create extension if not exists hstore;
reset role;
