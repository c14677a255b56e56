-- What Alluvium keeps for itself. The features are in plain tables of another schema, one per feature type.

-- The feature types, as JSON of their declarations.
CREATE TABLE alluvium.catalogue (
    name       text COLLATE "C" PRIMARY KEY,
    definition jsonb NOT NULL
);

-- Rises with each change of the catalogue. One row.
CREATE TABLE alluvium.revision (
    revision bigint NOT NULL
);
INSERT INTO alluvium.revision VALUES (0);

-- Types that were removed while their tables stayed.
CREATE TABLE alluvium.detached (
    name       text COLLATE "C" PRIMARY KEY,
    definition jsonb NOT NULL
);

-- How far each partition's log has been persisted. All three are exclusive: the next offset.
CREATE TABLE alluvium.watermark (
    feature_type    text COLLATE "C" NOT NULL,
    partition       integer NOT NULL,
    incarnation     text NOT NULL,
    durable_through bigint NOT NULL DEFAULT 0,
    evict_through   bigint NOT NULL DEFAULT 0,
    as_of           bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (feature_type, partition)
);

-- By which record a feature was deleted, for as long as the log may still hold older records of it.
CREATE TABLE alluvium.deleted (
    feature_type text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    partition    integer NOT NULL,
    version      bigint NOT NULL,
    PRIMARY KEY (feature_type, id)
);
CREATE INDEX deleted_by_version ON alluvium.deleted (feature_type, partition, version);

-- Features that a table's own constraints refused, whole, until they are mended or deleted.
CREATE TABLE alluvium.refused (
    feature_type text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    partition    integer NOT NULL,
    version      bigint NOT NULL,
    reason       text NOT NULL,
    refused_at   timestamptz NOT NULL DEFAULT now(),
    -- Well-known binary without SRID; null without geometry and of a deletion.
    geom         bytea,
    -- Text forms by name; null of a deletion that was refused.
    properties   json,
    PRIMARY KEY (feature_type, id)
);
