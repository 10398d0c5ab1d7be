-- Runs of a flow captured by batch are rows of sync_log, too, and so is what they undo.

alter type ftstream.outcome add value 'run_done';
alter type ftstream.outcome add value 'run_failed';

alter table ftstream.sync_log
    alter column kafka_partition drop not null,
    alter column kafka_offset drop not null,
    add column details jsonb;
comment on column ftstream.sync_log.operation is 'null for a record that could not be read, and for a run';
comment on column ftstream.sync_log.kafka_offset is 'null where nothing came through Kafka';
comment on column ftstream.sync_log.details is
    'of a run: rows found, published, deleted, and seconds; of an edit that a run undoes: the row as it was edited';

-- Some flows carry changes within a second, some in batches.
create or replace function ftstream.refuse_edit() returns trigger
language plpgsql set search_path = '' as $$
begin
    raise exception '%.% belongs to flow %, which % owns: % is refused here',
        tg_table_schema, tg_table_name, tg_argv[0], tg_argv[1], lower(tg_op)
        using errcode = 'object_not_in_prerequisite_state',
              hint = format('Edit %I.%I on %s; flow %s carries the change here.',
                            tg_table_schema, tg_table_name, tg_argv[1], tg_argv[0]);
end $$;
