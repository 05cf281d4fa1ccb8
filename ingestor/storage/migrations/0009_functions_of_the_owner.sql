-- Functions that run with their owner's rights look up names in the schema of `metrics` alone. The session's temporary
-- tables are searched first where a path doesn't name them, so that who may make some could have put one of their own in
-- the place of a system table, and code of their own into the owner's hands. (pg_catalog comes first unless it is named;
-- named, it would be where tables are made.) Who may call them has to be said.
DO $$
DECLARE
  here constant text := (SELECT n.nspname FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = 'metrics'::pg_catalog.regclass);
  function regprocedure;
BEGIN
  FOREACH function IN ARRAY ARRAY[
    'ensure_metrics_partition(timestamptz)'::regprocedure, 'ingestor_summarize_metrics()'::regprocedure
  ] LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path TO %I, pg_temp', function, here);
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
  END LOOP;
END
$$;
