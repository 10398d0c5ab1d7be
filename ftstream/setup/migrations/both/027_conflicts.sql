-- What the watcher counts every few seconds: there are few conflicts among many changes.

create index sync_log_conflicts on ftstream.sync_log (logged_at) where outcome in (
    'conflict_update_update', 'conflict_update_delete', 'conflict_delete_update', 'conflict_insert_insert');
