-- The guard that refuses edits of tables that the other site owns (guidelines 5.1). `init` puts the
-- triggers on the flows' tables.

-- Arguments: the flow and the site that owns its tables. Runs once a statement, and for every writer,
-- replica role included (ENABLE ALWAYS); the trigger's WHEN lets only ftstream's own transactions by.
create function ftstream.refuse_edit() returns trigger
language plpgsql set search_path = '' as $$
begin
    raise exception '%.% belongs to flow %, which % owns: % is refused here',
        tg_table_schema, tg_table_name, tg_argv[0], tg_argv[1], lower(tg_op)
        using errcode = 'object_not_in_prerequisite_state',
              hint = format('Edit %I.%I on %s; flow %s carries the change here within a second.',
                            tg_table_schema, tg_table_name, tg_argv[1], tg_argv[0]);
end $$;
-- A trigger fires without EXECUTE: nobody needs it but who makes one.
revoke all on function ftstream.refuse_edit() from public;
