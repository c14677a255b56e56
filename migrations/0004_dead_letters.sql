-- Records of the logs that no feature could be made of, kept when the log is cut: the newest of each feature type.
CREATE TABLE alluvium.dead_letters (
    feature_type   text COLLATE "C" NOT NULL,
    partition      integer NOT NULL,
    place          bigint NOT NULL,
    append_time_ms bigint NOT NULL,
    -- JSON, as /admin/dead-letters shows it.
    letter         text NOT NULL,
    PRIMARY KEY (feature_type, partition, place)
);
