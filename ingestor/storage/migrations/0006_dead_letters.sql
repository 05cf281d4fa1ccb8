-- Rows that were acknowledged and that the database refuses, with the reason, until somebody replays or purges them.
CREATE TABLE dead_letters (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dead_at timestamptz NOT NULL DEFAULT now(),
  sqlstate text, -- NULL: it was the ingestor that refused
  reason text NOT NULL,
  time timestamptz NOT NULL,
  metric json NOT NULL, -- as the API's Metric, in ASCII; jsonb would refuse what the database's encoding lacks
  journal uuid NOT NULL,
  position bigint NOT NULL,
  "row" integer NOT NULL, -- of the batch that ended at `position`
  request_id bytea
);
CREATE INDEX ON dead_letters (journal, position);

-- Inserts each of these rows by itself, and returns those that are refused through their own fault, with the reason;
-- any other failure is raised. Texts are UTF-8 as bytes, so that one which this database's encoding lacks is its
-- row's fault. `documents` are the label sets to insert with their rows, NULL where that isn't wanted.
CREATE FUNCTION store_metrics_one_by_one(
  times timestamptz[], service_names bytea[], metric_names bytea[], metric_values float8[], label_set_ids bigint[],
  documents bytea[]
) RETURNS TABLE (refused integer, sqlstate text, reason text)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  metric record;
  state text;
  message text;
  at_constraint text;
  at_table text;
  at_column text;
BEGIN
  FOR metric IN
    SELECT * FROM unnest(times, service_names, metric_names, metric_values, label_set_ids, documents) WITH ORDINALITY
      AS given (at, service, name, number, label_set, document, place)
  LOOP
    BEGIN
      IF metric.document IS NOT NULL THEN
        INSERT INTO label_sets (id, labels)
          VALUES (metric.label_set, convert_from(metric.document, 'UTF8')::jsonb) ON CONFLICT (id) DO NOTHING;
      END IF;
      INSERT INTO metrics (time, service_name, metric_name, value, label_set_id)
        VALUES (metric.at, convert_from(metric.service, 'UTF8'), convert_from(metric.name, 'UTF8'), metric.number,
                metric.label_set);
      IF NOT FOUND THEN
        RAISE EXCEPTION 'a trigger or rule of metrics leaves out a row' USING ERRCODE = 'IGC02';
      END IF;
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        at_constraint = CONSTRAINT_NAME, at_table = TABLE_NAME, at_column = COLUMN_NAME;
      -- The same rules as in ingestor/storage/faults.py, which has the reasons; a test compares them.
      IF state = '23514' AND at_constraint = '' AND at_table <> ''
         OR state = '23502' AND at_column NOT IN
           ('', 'time', 'service_name', 'metric_name', 'value', 'label_set_id', 'labels')
         OR state IN ('22P03', '22P04')
         OR NOT (left(state, 2) IN ('20', '21', '22', '23', '44') OR state IN ('54000', 'P0000', 'P0001', 'P0002', 'P0003'))
      THEN
        RAISE;
      END IF;
      RETURN QUERY SELECT metric.place::integer, state, message;
    END;
  END LOOP;
END
$$;
