-- name: rows
-- The rows of these keys, each column as it goes into an Avro record.
select t.{key}::text, {values} from {table} t
where t.{key} = any(%(ids)s::text[]::{key_type}[])
