-- What only one does at a time. A row is locked for it, and not an advisory lock taken: those any login may take.

create table ftstream.turn (
    name text primary key
);
comment on table ftstream.turn is
    'Whoever does what a row names has it locked: `select ... for update`; nobody but ftstream''s roles can';
insert into ftstream.turn values ('schema'), ('setup_seen'), ('gap'), ('sync_log'), ('publish');
alter table ftstream.turn enable row level security;
