-- The text of each stored query, as it was made.
CREATE TABLE alluvium.stored_queries (
    id         text COLLATE "C" PRIMARY KEY,
    definition text NOT NULL
);
