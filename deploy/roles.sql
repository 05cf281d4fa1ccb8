-- Three roles with no more rights than their work takes. To be run by psql, in the metrics' database, as a superuser:
-- before the first `ingestor migrate`, and after each one, since rights are given on what is there.
--
--   psql -d metrics -f roles.sql                 (the tables' schema: -v schema=public)
--
--   ingestor_migrate   owns the tables and changes them: `ingestor migrate`, `ingestor dead-letters replay | purge`
--   ingestor_ingest    stores: `ingestor serve`. It reads no metric back, and can change or delete none
--   ingestor_read      reads metrics, labels and the catalogue of series: people, Grafana. It reads no dead letters, and
--                      writes nothing
--
-- They can log in once they have passwords: \password ingestor_ingest, or MIGRATE_PASSWORD, INGEST_PASSWORD and
-- READ_PASSWORD in psql's environment. A gateway that answers queries (QueryMetrics, ListSeries) reads as who it
-- stores: run this with -v serve_reads=on then. Tables that another role made stay its own: REASSIGN OWNED BY
-- that_role TO ingestor_migrate gives them away.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
\if :{?schema}
\else
  \set schema public
\endif
\if :{?serve_reads}
\else
  \set serve_reads off
\endif
SELECT set_config('ingestor.schema', :'schema', false) AS chosen \gset

BEGIN;

DO $$
DECLARE
  role text;
  here constant text := current_setting('ingestor.schema');
BEGIN
  FOREACH role IN ARRAY ARRAY['ingestor_migrate', 'ingestor_ingest', 'ingestor_read'] LOOP
    IF to_regrole(role) IS NULL THEN
      EXECUTE format('CREATE ROLE %I LOGIN', role);
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', here, role);
  END LOOP;
  -- Temporary tables are nobody's need here, and the means to shadow others' names.
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  -- PostgreSQL 14 still lets everybody make tables in `public`.
  EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', here);
  EXECUTE format('GRANT CREATE ON SCHEMA %I TO ingestor_migrate', here);
  -- Here and now, since a role would need CREATE on the whole database for it.
  IF current_setting('timescaledb.max_background_workers', true) IS NOT NULL
     AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') THEN
    CREATE EXTENSION IF NOT EXISTS timescaledb;
  END IF;
END
$$;

ALTER ROLE ingestor_read SET default_transaction_read_only = on;
ALTER ROLE ingestor_read SET statement_timeout = '60s';

-- What is there of these tables and functions; a right that a later release does not name any more goes.
DO $$
DECLARE
  here constant text := current_setting('ingestor.schema');
  given record;
  function text;
BEGIN
  EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM ingestor_ingest, ingestor_read', here);
  FOR given IN SELECT * FROM (VALUES
    ('ingestor_ingest', 'metrics', 'INSERT'),
    ('ingestor_ingest', 'label_sets', 'SELECT, INSERT'),
    ('ingestor_ingest', 'metric_series', 'SELECT, INSERT, UPDATE'),
    ('ingestor_ingest', 'ingestor_migrations', 'SELECT'),
    ('ingestor_ingest', 'ingestor_database', 'SELECT'),
    ('ingestor_ingest', 'ingestor_journals', 'SELECT, INSERT, UPDATE, DELETE'),
    ('ingestor_ingest', 'request_ids', 'SELECT, INSERT, UPDATE, DELETE'),
    ('ingestor_ingest', 'dead_letters', 'SELECT, INSERT'),
    ('ingestor_read', 'metrics', 'SELECT'),
    ('ingestor_read', 'label_sets', 'SELECT'),
    ('ingestor_read', 'metric_series', 'SELECT'),
    ('ingestor_read', 'labeled_metrics', 'SELECT')
  ) AS rights (role, relation, what) LOOP
    IF to_regclass(format('%I.%I', here, given.relation)) IS NOT NULL THEN
      EXECUTE format('GRANT %s ON %I.%I TO %I', given.what, here, given.relation, given.role);
    END IF;
  END LOOP;
  FOREACH function IN ARRAY ARRAY['ensure_metrics_partition(timestamptz)', 'ingestor_summarize_metrics()'] LOOP
    IF to_regprocedure(format('%I.%s', here, function)) IS NOT NULL THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION %I.%s TO ingestor_ingest', here, function);
    END IF;
  END LOOP;
END
$$;

DO $$
BEGIN
  IF pg_has_role('ingestor_ingest', 'ingestor_read', 'MEMBER') THEN
    REVOKE ingestor_read FROM ingestor_ingest;
  END IF;
END
$$;

\getenv migrate_password MIGRATE_PASSWORD
\getenv ingest_password INGEST_PASSWORD
\getenv read_password READ_PASSWORD
\if :{?migrate_password}
  ALTER ROLE ingestor_migrate PASSWORD :'migrate_password';
\endif
\if :{?ingest_password}
  ALTER ROLE ingestor_ingest PASSWORD :'ingest_password';
\endif
\if :{?read_password}
  ALTER ROLE ingestor_read PASSWORD :'read_password';
\endif
\if :serve_reads
  GRANT ingestor_read TO ingestor_ingest;
\endif

COMMIT;
