-- New partitions of `metrics` know which of their blocks may hold rows of a series. Batches are stored with the rows of
-- each series together, so that such a summary finds them, at a tenth of what a b-tree costs those who store. Older
-- partitions were not stored so, and are left as they are.
CREATE OR REPLACE FUNCTION ensure_metrics_partition(week timestamptz) RETURNS boolean
LANGUAGE plpgsql
-- Its owner's rights, so that a role which may only insert need not own the table.
SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
  parent constant regclass := 'metrics'::regclass;
  partition_name constant text := 'metrics_' || to_char(week AT TIME ZONE 'UTC', 'IYYY"w"IW');
  from_text constant text := to_char(week AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"+00"');
  -- Hours and not days, which have 23 or 25 of them where the session's time zone changes its clocks.
  to_text constant text := to_char((week + interval '168 hours') AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"+00"');
  bounds constant text := format('FOR VALUES FROM (''%s'') TO (''%s'')', from_text, to_text);
  child oid;
BEGIN
  -- Two gateways that meet a new week at once take turns. The number is that of this project's locks.
  PERFORM pg_advisory_xact_lock(4951083, 2);
  SELECT c.oid INTO child FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_class AS p ON p.oid = parent AND p.relnamespace = n.oid
    WHERE c.relname = partition_name;
  IF child IS NOT NULL THEN
    IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = child AND inhparent = parent) THEN
      RETURN false;
    END IF;
    RAISE EXCEPTION 'the table % exists, but is not a partition of metrics', partition_name
      USING ERRCODE = 'duplicate_table', HINT = 'Attach it again, or rename it.';
  END IF;
  -- Created apart and then attached: CREATE TABLE ... PARTITION OF would lock out everybody, even readers.
  EXECUTE format('CREATE TABLE %I (LIKE metrics INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name);
  EXECUTE format(
    'CREATE INDEX ON %I USING brin (service_name, metric_name, time) WITH (pages_per_range = 4)', partition_name);
  EXECUTE format('ALTER TABLE metrics ATTACH PARTITION %I %s', partition_name, bounds);
  RETURN true;
END
$$;


-- Blocks that were filled lately are in no summary until somebody makes it: autovacuum in the end, this now. It does not
-- wait for whoever works on the partition, since autovacuum would be ended for it. Does nothing to a hypertable.
CREATE FUNCTION ingestor_summarize_metrics() RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '100ms'
AS $$
DECLARE
  summary regclass;
BEGIN
  FOR summary IN
    SELECT i.indexrelid FROM pg_inherits AS h
      JOIN pg_index AS i ON i.indrelid = h.inhrelid
      JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam AND a.amname = 'brin'
      JOIN pg_class AS t ON t.oid = h.inhrelid
      WHERE h.inhparent = 'metrics'::regclass
      ORDER BY t.relname DESC LIMIT 3 -- their names are in the order of time
  LOOP
    BEGIN
      PERFORM brin_summarize_new_values(summary);
    EXCEPTION WHEN lock_not_available OR undefined_table THEN
      NULL;
    END;
  END LOOP;
END
$$;
