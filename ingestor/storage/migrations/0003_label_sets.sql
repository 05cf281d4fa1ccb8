-- A metric's labels are stored once per distinct set; rows carry the set's id (0: no labels), which is a hash
-- of the set, so that no gateway has to ask for it.
CREATE TABLE label_sets (
  id bigint PRIMARY KEY,
  labels jsonb NOT NULL
);

CREATE VIEW labeled_metrics AS
  SELECT m.time, m.service_name, m.metric_name, m.value, coalesce(s.labels, '{}'::jsonb) AS labels
    FROM metrics AS m
    LEFT JOIN label_sets AS s ON s.id = m.label_set_id;
