-- Versions of the rows of tables that were there before, which have no column for them. A row without one was written by
-- another tool: version 0.
CREATE TABLE alluvium.version (
    feature_type text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    version      bigint NOT NULL,
    PRIMARY KEY (feature_type, id)
);
