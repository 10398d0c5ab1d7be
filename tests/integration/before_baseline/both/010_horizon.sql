-- Tombstones do not stay for ever. A write that is older than those which are gone, of an entity that nobody
-- knows, may be one that was deleted since: it is refused.

create table ftstream.horizon (
    table_name text   primary key,
    version    bigint not null
);
comment on table ftstream.horizon is
    'The greatest version of a tombstone that was pruned: an older write of an unknown entity is refused';
alter table ftstream.horizon enable row level security;
