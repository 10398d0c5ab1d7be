-- The External cluster, once it answers; run in gfx_production by its superuser. Can run again.
create extension if not exists citext;
create extension if not exists hstore;
