-- Makes the partition of `metrics` for the week (Monday 00:00 UTC) that begins at `week`, if it is not there.
-- Returns whether it made it. Only for a range-partitioned `metrics`; a hypertable makes its own chunks.
CREATE FUNCTION ensure_metrics_partition(week timestamptz) RETURNS boolean
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
  EXECUTE format('ALTER TABLE metrics ATTACH PARTITION %I %s', partition_name, bounds);
  RETURN true;
END
$$;

REVOKE EXECUTE ON FUNCTION ensure_metrics_partition(timestamptz) FROM PUBLIC;
