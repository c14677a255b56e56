-- The R-tree of a table and the triggers that keep it (GeoPackage 1.4, annex F.3, whose triggers also stand an upsert).
-- {table} and {rtree} are put in as they are: names of feature types need no quoting inside quotes.
CREATE VIRTUAL TABLE "{rtree}" USING rtree(id, minx, maxx, miny, maxy);
INSERT INTO "{rtree}" SELECT fid, ST_MinX(geom), ST_MaxX(geom), ST_MinY(geom), ST_MaxY(geom)
  FROM "{table}" WHERE geom NOTNULL AND NOT ST_IsEmpty(geom);
CREATE TRIGGER "{rtree}_insert" AFTER INSERT ON "{table}"
  WHEN (new.geom NOTNULL AND NOT ST_IsEmpty(new.geom))
BEGIN
  INSERT OR REPLACE INTO "{rtree}"
    VALUES (new.fid, ST_MinX(new.geom), ST_MaxX(new.geom), ST_MinY(new.geom), ST_MaxY(new.geom));
END;
CREATE TRIGGER "{rtree}_update2" AFTER UPDATE OF geom ON "{table}"
  WHEN old.fid = new.fid AND (new.geom ISNULL OR ST_IsEmpty(new.geom))
BEGIN
  DELETE FROM "{rtree}" WHERE id = old.fid;
END;
CREATE TRIGGER "{rtree}_update4" AFTER UPDATE ON "{table}"
  WHEN old.fid != new.fid AND (new.geom ISNULL OR ST_IsEmpty(new.geom))
BEGIN
  DELETE FROM "{rtree}" WHERE id IN (old.fid, new.fid);
END;
CREATE TRIGGER "{rtree}_update5" AFTER UPDATE ON "{table}"
  WHEN old.fid != new.fid AND (new.geom NOTNULL AND NOT ST_IsEmpty(new.geom))
BEGIN
  DELETE FROM "{rtree}" WHERE id = old.fid;
  INSERT OR REPLACE INTO "{rtree}"
    VALUES (new.fid, ST_MinX(new.geom), ST_MaxX(new.geom), ST_MinY(new.geom), ST_MaxY(new.geom));
END;
CREATE TRIGGER "{rtree}_update6" AFTER UPDATE OF geom ON "{table}"
  WHEN old.fid = new.fid AND (new.geom NOTNULL AND NOT ST_IsEmpty(new.geom))
    AND (old.geom NOTNULL AND NOT ST_IsEmpty(old.geom))
BEGIN
  UPDATE "{rtree}"
    SET minx = ST_MinX(new.geom), maxx = ST_MaxX(new.geom), miny = ST_MinY(new.geom), maxy = ST_MaxY(new.geom)
    WHERE id = new.fid;
END;
CREATE TRIGGER "{rtree}_update7" AFTER UPDATE OF geom ON "{table}"
  WHEN old.fid = new.fid AND (new.geom NOTNULL AND NOT ST_IsEmpty(new.geom))
    AND (old.geom ISNULL OR ST_IsEmpty(old.geom))
BEGIN
  INSERT INTO "{rtree}"
    VALUES (new.fid, ST_MinX(new.geom), ST_MaxX(new.geom), ST_MinY(new.geom), ST_MaxY(new.geom));
END;
CREATE TRIGGER "{rtree}_delete" AFTER DELETE ON "{table}"
  WHEN old.geom NOTNULL
BEGIN
  DELETE FROM "{rtree}" WHERE id = old.fid;
END;
