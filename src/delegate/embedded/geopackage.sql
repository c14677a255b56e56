-- A GeoPackage 1.3 without contents (OGC 12-128r17), and the server's own bookkeeping beside it.
CREATE TABLE IF NOT EXISTS gpkg_spatial_ref_sys (
  srs_name TEXT NOT NULL,
  srs_id INTEGER PRIMARY KEY,
  organization TEXT NOT NULL,
  organization_coordsys_id INTEGER NOT NULL,
  definition TEXT NOT NULL,
  description TEXT
);
INSERT OR IGNORE INTO gpkg_spatial_ref_sys VALUES
  ('Undefined cartesian SRS', -1, 'NONE', -1, 'undefined', 'undefined cartesian coordinate reference system'),
  ('Undefined geographic SRS', 0, 'NONE', 0, 'undefined', 'undefined geographic coordinate reference system'),
  ('WGS 84 geodetic', 4326, 'EPSG', 4326, 'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],AUTHORITY["EPSG","4326"]]', 'longitude/latitude coordinates in decimal degrees on the WGS 84 spheroid'),
  ('WGS 84 / Pseudo-Mercator', 3857, 'EPSG', 3857, 'PROJCS["WGS 84 / Pseudo-Mercator",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],AUTHORITY["EPSG","4326"]],PROJECTION["Mercator_1SP"],PARAMETER["central_meridian",0],PARAMETER["scale_factor",1],PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Easting",EAST],AXIS["Northing",NORTH],EXTENSION["PROJ4","+proj=merc +a=6378137 +b=6378137 +lat_ts=0 +lon_0=0 +x_0=0 +y_0=0 +k=1 +units=m +nadgrids=@null +wktext +no_defs"],AUTHORITY["EPSG","3857"]]', 'the projection of web maps');

CREATE TABLE IF NOT EXISTS gpkg_contents (
  table_name TEXT NOT NULL PRIMARY KEY,
  data_type TEXT NOT NULL,
  identifier TEXT UNIQUE,
  description TEXT DEFAULT '',
  last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
  min_x DOUBLE,
  min_y DOUBLE,
  max_x DOUBLE,
  max_y DOUBLE,
  srs_id INTEGER,
  CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id)
);
CREATE TABLE IF NOT EXISTS gpkg_geometry_columns (
  table_name TEXT NOT NULL,
  column_name TEXT NOT NULL,
  geometry_type_name TEXT NOT NULL,
  srs_id INTEGER NOT NULL,
  z TINYINT NOT NULL,
  m TINYINT NOT NULL,
  CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name),
  CONSTRAINT uk_gc_table_name UNIQUE (table_name),
  CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
  CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id)
);
CREATE TABLE IF NOT EXISTS gpkg_extensions (
  table_name TEXT,
  column_name TEXT,
  extension_name TEXT NOT NULL,
  definition TEXT NOT NULL,
  scope TEXT NOT NULL,
  CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name)
);

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
