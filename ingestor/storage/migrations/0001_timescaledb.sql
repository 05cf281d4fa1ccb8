-- Uses TimescaleDB where the server has it preloaded and lets us create it; without it everything else
-- works on plain PostgreSQL. Every migration may be run by psql, inside one transaction.
DO $$
DECLARE
  installed text;
BEGIN
  -- The loader defines this parameter when it was preloaded; shared_preload_libraries itself can only be
  -- read by privileged roles.
  IF current_setting('timescaledb.max_background_workers', true) IS NOT NULL
     AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') THEN
    BEGIN
      CREATE EXTENSION IF NOT EXISTS timescaledb;
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE WARNING 'this role may not create the extension timescaledb, so the table will be plain PostgreSQL';
    END;
  END IF;
  SELECT extversion INTO installed FROM pg_extension WHERE extname = 'timescaledb';
  IF installed IS NOT NULL
     AND (split_part(installed, '.', 1)::int, split_part(installed, '.', 2)::int) < (2, 17) THEN
    RAISE EXCEPTION 'TimescaleDB 2.17 or newer is needed, this database has %', installed
      USING HINT = 'ALTER EXTENSION timescaledb UPDATE';
  END IF;
END
$$;
