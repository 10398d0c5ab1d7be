-- Rows of a COPY that share a position in the log are lost, if a connector restarts among them: Debezium 3.6 loses
-- the rest of the page, 3.7.0 does so after the page's first row. `init` puts a trigger on what Debezium captures
-- that never fires: where there is one before each row, COPY logs each row by itself.

create function ftstream.log_row_by_row() returns trigger
language plpgsql set search_path = '' as $$
begin
    return new;
end $$;
revoke all on function ftstream.log_row_by_row() from public;
