#!/bin/sh
# Runs once, after supabase.sql has made the role: the administrator that ftstream is given.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  -v password="$SUPABASE_PASSWORD" <<'SQL'
alter role postgres password :'password';
SQL
