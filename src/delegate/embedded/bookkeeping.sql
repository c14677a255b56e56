-- The server's own bookkeeping, in a GeoPackage.
-- One row: the version of these tables, and a number that rises with every change of the catalogue.
CREATE TABLE IF NOT EXISTS gpkgext_alluvium_state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  format INTEGER NOT NULL,
  revision INTEGER NOT NULL
);
INSERT OR IGNORE INTO gpkgext_alluvium_state VALUES (1, 1, 0);
-- The tables that the server has made, with their feature types in JSON; not attached: the type was removed, its table left.
CREATE TABLE IF NOT EXISTS gpkgext_alluvium_catalogue (
  name TEXT PRIMARY KEY,
  feature_type TEXT NOT NULL,
  attached INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gpkgext_alluvium_watermarks (
  feature_type TEXT NOT NULL,
  partition INTEGER NOT NULL,
  incarnation TEXT NOT NULL,
  durable_through INTEGER NOT NULL,
  evict_through INTEGER NOT NULL,
  as_of INTEGER NOT NULL,
  PRIMARY KEY (feature_type, partition)
) WITHOUT ROWID;
-- The versions of deleted features, until the log has been cut past them.
CREATE TABLE IF NOT EXISTS gpkgext_alluvium_deleted (
  feature_type TEXT NOT NULL,
  id TEXT NOT NULL,
  partition INTEGER NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (feature_type, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS gpkgext_alluvium_deleted_version
  ON gpkgext_alluvium_deleted (feature_type, partition, version);
-- When deleted features of types with event times were as they were, microseconds, and until when that is remembered,
-- milliseconds; both since the epoch.
CREATE TABLE IF NOT EXISTS gpkgext_alluvium_deleted_time (
  feature_type TEXT NOT NULL,
  id TEXT NOT NULL,
  event_time INTEGER NOT NULL,
  until INTEGER NOT NULL,
  PRIMARY KEY (feature_type, id)
) WITHOUT ROWID;
-- Features that a constraint has refused, whole: geometry as ISO WKB, properties as a JSON object of texts.
CREATE TABLE IF NOT EXISTS gpkgext_alluvium_refused (
  feature_type TEXT NOT NULL,
  id TEXT NOT NULL,
  partition INTEGER NOT NULL,
  version INTEGER NOT NULL,
  reason TEXT NOT NULL,
  geometry BLOB,
  properties TEXT,
  PRIMARY KEY (feature_type, id)
) WITHOUT ROWID;
-- Records of the log that no feature could be made of, as JSON: the newest of each feature type.
CREATE TABLE IF NOT EXISTS gpkgext_alluvium_dead_letters (
  feature_type TEXT NOT NULL,
  partition INTEGER NOT NULL,
  place INTEGER NOT NULL,
  append_time_ms INTEGER NOT NULL,
  letter TEXT NOT NULL,
  PRIMARY KEY (feature_type, partition, place)
) WITHOUT ROWID;
-- The text of each stored query, as it was made.
CREATE TABLE IF NOT EXISTS gpkgext_alluvium_stored_queries (
  id TEXT PRIMARY KEY,
  definition TEXT NOT NULL
) WITHOUT ROWID;
-- The last fixes of tracks that still grow, as ISO WKB, apart from their lines; gone when the line has them.
CREATE TABLE IF NOT EXISTS gpkgext_alluvium_tails (
  feature_type TEXT NOT NULL,
  id TEXT NOT NULL,
  partition INTEGER NOT NULL,
  version INTEGER NOT NULL,
  fixes BLOB NOT NULL,
  newest INTEGER NOT NULL,
  PRIMARY KEY (feature_type, id, version)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS gpkgext_alluvium_tails_age
  ON gpkgext_alluvium_tails (feature_type, partition, version) WHERE newest;
INSERT OR IGNORE INTO gpkg_extensions
  SELECT 'gpkgext_alluvium_' || name, NULL, 'alluvium_bookkeeping', 'Bookkeeping of the Alluvium server', 'read-write'
  FROM (SELECT 'state' AS name UNION SELECT 'catalogue' UNION SELECT 'watermarks' UNION SELECT 'deleted' UNION SELECT 'deleted_time'
        UNION SELECT 'refused' UNION SELECT 'dead_letters' UNION SELECT 'stored_queries' UNION SELECT 'tails')
  WHERE NOT EXISTS (SELECT 1 FROM gpkg_extensions WHERE table_name = 'gpkgext_alluvium_' || name);
