-- What a reviewer looks at: who owns, may call and may touch what is ftstream's, and what its roles reach besides.

-- name: functions
-- Each function: owner, whose rights it runs with, its path, and who may call it.
select format('%s: owner %s, %s, path %s, callers %s', p.oid::regprocedure, pg_get_userbyid(p.proowner),
              case when p.prosecdef then 'runs as its owner' else 'runs as its caller' end,
              coalesce((select substr(c.entry, 13) from unnest(p.proconfig) as c(entry)
                        where c.entry like 'search\_path=%'), 'any'),
              coalesce((select string_agg(case a.grantee when 0 then 'PUBLIC' else pg_get_userbyid(a.grantee) end, ' '
                                          order by pg_get_userbyid(a.grantee))
                        from aclexplode(p.proacl) a where a.grantee <> p.proowner), 'nobody'))
from pg_proc p where p.pronamespace = 'ftstream'::regnamespace order by 1

-- name: tables
-- Each table and view: owner, whether row security is on, and who may do what.
select format('%s: owner %s, row security %s, %s', c.oid::regclass, pg_get_userbyid(c.relowner),
              case when c.relrowsecurity then 'on' when c.relkind = 'v' then 'of the caller' else 'off' end,
              coalesce((select string_agg(format('%s %s', a.who, a.what), '; ' order by a.who) from (
                  select case x.grantee when 0 then 'PUBLIC' else pg_get_userbyid(x.grantee) end as who,
                         string_agg(lower(x.privilege_type), ',' order by x.privilege_type) as what
                  from aclexplode(c.relacl) x where x.grantee <> c.relowner group by x.grantee) a), 'nobody'))
from pg_class c where c.relnamespace = 'ftstream'::regnamespace and c.relkind in ('r', 'p', 'v')
  and c.relname !~ '^sync_log_[0-9]{8}$' order by 1

-- name: reached
-- Each other table that a role of ftstream's may touch.
select format('%s: %s', c.oid::regclass, string_agg(distinct format('%s %s', a.who, a.what), '; '))
from pg_class c, lateral (
    select pg_get_userbyid(x.grantee) as who, string_agg(lower(x.privilege_type), ',' order by x.privilege_type) as what
    from aclexplode(c.relacl) x
    where x.grantee <> c.relowner and pg_get_userbyid(x.grantee) ~ '^(ftstream_definer|apply|capture)_'
    group by x.grantee) a
where c.relkind in ('r', 'p') and c.relnamespace <> 'ftstream'::regnamespace
group by c.oid order by 1

-- name: roles
-- Each role of ftstream's, and what it is besides.
select format('%s:%s%s%s%s', r.rolname, case when r.rolcanlogin then ' login' else ' no login' end,
              case when r.rolreplication then ' replication' else '' end,
              case when r.rolbypassrls then ' bypasses row security' else '' end,
              case when r.rolsuper then ' superuser' else '' end)
from pg_roles r where r.rolname ~ ('^(ftstream_definer|apply|capture)_' || current_database() || '$') order by 1
