-- Whether a site goes back in time: each counts on while it is looked at, and the other keeps how far it was seen to be.

create table ftstream.lineage (
    site              ftstream.site primary key,
    counter           bigint        not null,
    system_identifier text          not null,
    counted_at        timestamptz   not null default clock_timestamp()
);
comment on table ftstream.lineage is
    'How far each site has counted, its own row and what was seen of the other: one that has counted less than was seen of it is a restored backup, or a replica that was behind';
alter table ftstream.lineage enable row level security;
