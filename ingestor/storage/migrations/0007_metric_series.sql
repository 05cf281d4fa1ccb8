-- The catalogue of series: each metric of each service that was ever stored, with the times of its rows. A batch's
-- transaction adds what is new; times of known ones follow within seconds. In the order of bytes, whatever the
-- database's own, so that pages and prefixes can use the key.
CREATE TABLE metric_series (
  service_name text COLLATE "C" NOT NULL,
  metric_name text COLLATE "C" NOT NULL,
  first_time timestamptz NOT NULL,
  last_time timestamptz NOT NULL,
  PRIMARY KEY (service_name, metric_name)
) WITH (fillfactor = 50); -- updated again and again, so that there is always room for it on the same page

-- What is there already. An adopted table may hold what the API would have refused: such rows are not listed.
INSERT INTO metric_series
  SELECT service_name, metric_name, min(time), max(time) FROM metrics
    WHERE isfinite(time) AND octet_length(service_name) BETWEEN 1 AND 255 AND octet_length(metric_name) BETWEEN 1 AND 255
    GROUP BY service_name, metric_name;
