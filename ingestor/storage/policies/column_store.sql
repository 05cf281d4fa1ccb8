-- Turns TimescaleDB's column store on for `metrics`, where its owner has not set it up already, and installs the
-- policies that tidy up behind it. May be run again at any time; it changes nothing that is there.
DO $$
DECLARE
  schema constant regnamespace := (SELECT extnamespace FROM pg_extension WHERE extname = 'timescaledb');
  enabled boolean;
  -- What is there is not asked for again, which TimescaleDB would forbid a role that only stores.
  policies constant text[] := (
    SELECT array_agg(j.proc_name::text) FROM timescaledb_information.jobs AS j
      JOIN pg_namespace AS n ON n.nspname = j.hypertable_schema
      JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = j.hypertable_name
      WHERE c.oid = 'metrics'::regclass);
BEGIN
  SELECT h.compression_enabled INTO enabled FROM timescaledb_information.hypertables AS h
    JOIN pg_namespace AS n ON n.nspname = h.hypertable_schema
    JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = h.hypertable_name
    WHERE c.oid = 'metrics'::regclass;
  IF NOT enabled THEN
    -- The older of the parameters' two names, which every release knows.
    ALTER TABLE metrics SET (
      timescaledb.compress,
      timescaledb.compress_segmentby = 'service_name, metric_name, label_set_id',
      timescaledb.compress_orderby = 'time'
    );
  END IF;
  -- Rows of batches that were too thin for the column store lie in the row store until this policy moves them.
  IF 'policy_compression' <> ALL (coalesce(policies, '{}')) THEN
    EXECUTE format(
      'SELECT %s.add_compression_policy(''metrics'', INTERVAL ''1 day'', if_not_exists => true)', schema);
  END IF;
  -- Many small batches leave many small segments, which this one joins (from 2.29 on).
  IF 'policy_compaction' <> ALL (coalesce(policies, '{}'))
     AND EXISTS (SELECT FROM pg_proc WHERE proname = 'add_compaction_policy' AND pronamespace = schema) THEN
    EXECUTE format(
      'SELECT %s.add_compaction_policy(''metrics'', schedule_interval => INTERVAL ''30 minutes'','
      ' if_not_exists => true)', schema);
  END IF;
END
$$;
