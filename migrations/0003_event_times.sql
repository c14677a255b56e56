-- When deleted features of types with event times were as they were, microseconds, and until when that is remembered,
-- milliseconds; both since the epoch.
CREATE TABLE alluvium.deleted_time (
    feature_type text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    event_time   bigint NOT NULL,
    until        bigint NOT NULL,
    PRIMARY KEY (feature_type, id)
);
