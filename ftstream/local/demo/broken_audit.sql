-- Production lost the audit table and its enum and kept the trigger that needs them: after this
-- file every insert, update and delete of player_overrides fails unless triggers are off.
set local search_path = public;

drop table manual_audit_log;
drop type manual_audit_action;
