-- What makes a batch be stored once and only once: who this database is, how far each journal has got in it, and
-- which requests it has seen. A batch's transaction moves the journal's cursor and notes the requests' ids.

-- One row, which says which database this is; a journal that was filled for another one notices by it.
CREATE TABLE ingestor_database (
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one)
);
INSERT INTO ingestor_database DEFAULT VALUES;

-- All that lies in `journal` up to `position` is committed here. One that is not durable ends with its process.
CREATE TABLE ingestor_journals (
  journal uuid PRIMARY KEY,
  position bigint NOT NULL,
  durable boolean NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10); -- updated with every batch, so that there is always room for it on the same page

-- Moves a cursor, if it stands where the caller believes it to stand.
CREATE FUNCTION ingestor_move_cursor(of_journal uuid, after bigint, "to" bigint) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
  UPDATE ingestor_journals SET position = "to", updated_at = now()
    WHERE journal = of_journal AND position = after;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the cursor of journal % does not stand at %', of_journal, after USING ERRCODE = 'IGC01';
  END IF;
END
$$;

-- Requests that were given an id by their caller. The texts are UTF-8 as bytes, because a database with another
-- encoding would refuse some of them. `rejected` is the service's to read; `dead` lists the rows that are in
-- dead_letters, as [row of the request, sqlstate, reason].
CREATE TABLE request_ids (
  caller bytea NOT NULL,
  id bytea NOT NULL,
  fingerprint bytea NOT NULL,
  accepted integer NOT NULL,
  rejected bytea NOT NULL,
  dead json NOT NULL DEFAULT '[]',
  journal uuid NOT NULL,
  position bigint NOT NULL,
  committed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (caller, id)
);
CREATE INDEX ON request_ids (committed_at);
