-- The last fixes of tracks that still grow, apart from their lines, which are written anew only now and then: a long line costs
-- as much as it is long. Gone when the line has them.
CREATE TABLE alluvium.tail (
    feature_type text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    partition    integer NOT NULL,
    -- That the track's row had with these fixes; a row of an earlier one is not the row that they belong to.
    version      bigint NOT NULL,
    -- Points in the order in which they came: of two at one time the later one counts.
    fixes        geometry NOT NULL,
    -- Of those of a track the last.
    newest       boolean NOT NULL,
    PRIMARY KEY (feature_type, id, version)
);
CREATE INDEX tail_by_age ON alluvium.tail (feature_type, partition, version) WHERE newest;
CREATE INDEX tail_by_place ON alluvium.tail USING gist (fixes);
