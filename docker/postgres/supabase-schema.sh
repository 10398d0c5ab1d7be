#!/bin/sh
# The demo's tables belong to `postgres`, as on Supabase, and not to the superuser of the image.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --command 'set role postgres' --file /ftstream/schema.sql
