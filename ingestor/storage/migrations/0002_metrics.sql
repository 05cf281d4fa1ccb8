-- The table `metrics`: a hypertable on time where TimescaleDB is, else range-partitioned by week. An existing
-- table of the first design's four columns is adopted as it is, and gains label_set_id.
DO $$
DECLARE
  needed constant text[] := ARRAY['time timestamp with time zone', 'service_name text', 'metric_name text',
                                  'value double precision'];
  -- The schema of its functions, which an administrator may have put outside of search_path; NULL without it.
  timescaledb constant regnamespace := (SELECT extnamespace FROM pg_extension WHERE extname = 'timescaledb');
  existing constant oid := to_regclass('metrics');
  kind "char";
  unfit text;
BEGIN
  IF existing IS NULL THEN
    EXECUTE format(
      'CREATE TABLE metrics (
         time timestamptz NOT NULL,
         service_name text NOT NULL,
         metric_name text NOT NULL,
         value double precision,
         label_set_id bigint NOT NULL DEFAULT 0
       ) %s', CASE WHEN timescaledb IS NULL THEN 'PARTITION BY RANGE (time)' ELSE '' END);
    IF timescaledb IS NULL THEN
      -- PostgreSQL names it metrics_time_idx, or finds another name where a renamed table has kept that one.
      CREATE INDEX ON metrics (time DESC);
    ELSE
      -- With its default index, which is metrics_time_idx (time DESC).
      EXECUTE format('SELECT %s.create_hypertable(''metrics'', ''time'')', timescaledb);
    END IF;
    RETURN;
  END IF;

  SELECT relkind INTO kind FROM pg_class WHERE oid = existing;
  IF kind <> 'r' THEN
    RAISE EXCEPTION 'the "metrics" in this database is no ordinary table or hypertable, so it can''t be adopted'
      USING HINT = 'Rename it, or name another database.';
  END IF;
  WITH columns AS (
    SELECT attname::text || ' ' || format_type(atttypid, atttypmod) AS definition, attname, atttypid,
           attnotnull AND NOT atthasdef AND attidentity = '' AS must_be_given
      FROM pg_attribute WHERE attrelid = existing AND attnum > 0 AND NOT attisdropped)
  SELECT string_agg(complaint, ', ') INTO unfit FROM (
    SELECT 'it lacks ' || wanted AS complaint FROM unnest(needed) AS wanted
      WHERE wanted NOT IN (SELECT definition FROM columns)
    UNION ALL
    -- A narrower one would look fine until COPY, which takes the rows for wrong.
    SELECT 'its label_set_id is ' || atttypid::regtype || ', not bigint' FROM columns
      WHERE attname = 'label_set_id' AND atttypid <> 'bigint'::regtype
    UNION ALL
    -- A metric that comes twice would be refused, and its whole batch with it.
    SELECT 'its unique index ' || indexrelid::regclass || ' forbids rows that are alike' FROM pg_index
      WHERE indrelid = existing AND indisunique
    UNION ALL
    SELECT 'nothing would fill its column ' || attname FROM columns
      WHERE must_be_given AND attname NOT IN ('time', 'service_name', 'metric_name', 'value', 'label_set_id')
  ) AS complaints;
  IF unfit IS NOT NULL THEN
    RAISE EXCEPTION 'the table metrics of this database can''t be adopted: %', unfit
      USING HINT = 'Rename it, or name another database.';
  END IF;
  -- Instant: a constant default rewrites nothing.
  ALTER TABLE metrics ADD COLUMN IF NOT EXISTS label_set_id bigint NOT NULL DEFAULT 0;
  -- A table with rows is left an ordinary one: turning it into a hypertable rewrites it under a lock, which is
  -- for its owner to time (select create_hypertable('metrics', 'time', migrate_data => true)).
  IF timescaledb IS NOT NULL AND NOT EXISTS (SELECT FROM metrics) THEN
    EXECUTE format('SELECT %s.create_hypertable(''metrics'', ''time'', if_not_exists => true)', timescaledb);
  END IF;
END
$$;
