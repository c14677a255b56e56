\set n random(0, :features - 1)
\set k random(0, 999)
UPDATE bench.fleet SET geom = ST_SetSRID(ST_MakePoint(:n % 499 * 73 % 340 - 170 + :n * 31 % 2000 / 1000.0 + :k * 17 % 1000 / 1e5,
  :n % 499 * 37 % 120 - 60 + :n * 57 % 2000 / 1000.0 + :k * 29 % 1000 / 1e5), 4326),
  seq = :k, speed = :k % 300 / 10.0, course = :k * 7 % 3600 / 10.0, heading = :k % 360, seen = now()
  WHERE id = 's' || lpad((:n)::text, 7, '0');
