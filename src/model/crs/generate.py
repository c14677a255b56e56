#!/usr/bin/env python3
"""Writes table.tsv and points.tsv from PROJ's own database.

    python3 -m venv venv && venv/bin/pip install pyproj==3.7.2
    venv/bin/python src/model/crs/generate.py        # in the repository's root; runs cargo

The reference is PROJ without grid files, longitude or easting first. A CRS is listed when proj4rs agrees with it to EXACT_MM,
both ways, at every point of a grid over the CRS's area of use: so the table is filtered by what the Rust code computes, not by
what it ought to compute. Where PROJ has several datum shifts for parts of the area, the table has the one of most points; such a
CRS is listed when it agrees at those points and is at most REGIONAL_MM off elsewhere, which is about what the shifts themselves
are good for.
"""

import math
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections import Counter

import pyproj
from pyproj.database import query_crs_info
from pyproj.enums import PJType, TransformDirection

warnings.simplefilter("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))
GRID = 5
EXACT_MM = 1
REGIONAL_MM = 3000

# What people use, and one of each projection method: these go into points.tsv, for the test that runs always.
FIXTURE = """
4326 3857 4258 4269 4267 4283 7844 4617 4674 4167 4230 4277 4314 4171
25828 25830 25832 25833 25835 32610 32618 32632 32633 32655 32718 32736 32760 32601
3034 3035 3395 3413 3031 3032 3408 3995 5041 32661 3832 6933 8857
27700 29903 2157 2154 27572 2056 21781 28992 31370 31467 31468 31287 31256
3003 3004 2180 3006 3067 3301 3346 3059 5514 2065 23700 3794 3765
2193 28355 7855 3577 3112 2263 2272 26918 26910 5070 3347 3978 6350 2163
31983 5880 22234 2048 32161 3400 5181 6677 4490 4549 3414 2326
""".split()


GRIDS_AND_POLYNOMIALS = """hgridshift gridshift vgridshift xyzgridshift molobadekas defmodel horner tinshift deformation affine
geogoffset molodensky""".split()


def helmert(definition):
    """The +towgs84 that an operation from WGS 84 inverts; "" where it has no shift; None where it is more than one Helmert step."""
    shift = ""
    for step in re.split(r"\+?\bstep\b", definition):
        words = dict((w.lstrip("+").split("=") + [""])[:2] for w in step.split())
        if words.get("proj") in GRIDS_AND_POLYNOMIALS:
            return None
        if words.get("proj") != "helmert":
            continue
        if shift or "t_epoch" in words:
            return None
        values = [float(words.get(k, 0)) for k in ("x", "y", "z", "rx", "ry", "rz", "s")]
        if "inv" not in words:
            if any(values[3:]):
                return None
            values = [-v for v in values]
        if words.get("convention") == "coordinate_frame":
            values[3:6] = [-v for v in values[3:6]]
        shift = ",".join("%.12g" % v for v in (values if any(values[3:]) else values[:3]))
    return shift


def authalic(crs):
    """The projection of a CRS whose way back goes by the authalic latitude, which PROJ before 9.7 takes from a series of three
    terms, up to 1.6 mm off; its way there is exact."""
    words = crs.to_proj4(4).split() if crs.is_projected else []
    return pyproj.Proj(crs) if {"+proj=laea", "+proj=cea", "+proj=eqearth"}.intersection(words) else None


def mended(projection, x, y):
    """The coordinates that PROJ takes back to where x, y belong: x, y less what its way back and there again adds to them."""
    there_x, there_y = projection(*projection(x, y, inverse=True))
    return 2 * x - there_x, 2 * y - there_y


def northing_first(crs):
    first, second = crs.axis_info[:2]
    return (first.direction, second.direction) == ("north", "east") or (
        first.direction == second.direction and first.name.startswith("Northing"))


def samples(area):
    """A grid over the area of use, a little inside of it."""
    west, east = area.west, area.east if area.east >= area.west else area.east + 360
    south, north = max(area.south, -89.9), min(area.north, 89.9)
    for i in range(GRID):
        for j in range(GRID):
            f, g = (i + 0.5) / GRID, (j + 0.5) / GRID
            lon, lat = west + f * (east - west), south + g * (north - south)
            yield ((lon + 180) % 360 - 180, lat)


def candidate(info):
    """(row of the table, [(lon, lat, x, y, lon and lat of the way back, whether the shift is the table's)]) of a CRS, or why there is none."""
    crs = pyproj.CRS.from_epsg(int(info.code))
    area = crs.area_of_use
    geographic = crs.is_geographic
    if area is None:
        return "no area of use"
    if geographic and any(a.unit_name != "degree" for a in crs.axis_info[:2]):
        return "not in degrees"
    forward = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    equal_area = authalic(crs)
    points, shifts = [], Counter()
    for lon, lat in samples(area):
        x, y = forward.transform(lon, lat)
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        # A transformer over a single operation has no "last used" one and describes itself.
        try:
            definition = forward.get_last_used_operation().definition
        except Exception:
            definition = forward.definition
        shift = helmert(definition)
        # A shift drops the height that it makes, so the way back ends a little beside where the way there began.
        reached = mended(equal_area, x, y) if equal_area else (x, y)
        back = forward.transform(*reached, direction=TransformDirection.INVERSE)
        points.append((lon, lat, x, y, *back, shift))
        shifts[shift] += 1
    if not points:
        return "PROJ transforms no point"
    shift = shifts.most_common(1)[0][0]
    if shift is None:
        return "no Helmert shift"
    proj4 = crs.to_proj4(4)
    if not proj4:
        return "no PROJ.4 string"
    words = [w.lstrip("+") for w in proj4.split() if w not in ("+no_defs", "+type=crs", "+wktext")]
    keep = [w for w in words if not w.startswith(("towgs84=", "nadgrids="))]
    if int(info.code) == 3857:
        # Its latitudes are those of the ellipsoid, its plane that of a sphere.
        keep.append("nadgrids=@null")
    elif shift == "" and not any(w in ("ellps=GRS80", "datum=WGS84", "ellps=WGS84", "datum=NAD83") for w in keep):
        return "datum without a known shift"
    if not any(w.startswith(("datum=WGS84", "nadgrids=")) for w in keep):
        keep = [w.replace("datum=NAD83", "ellps=GRS80").replace("datum=NAD27", "ellps=clrk66") for w in keep]
        keep = [w for w in keep if not w.startswith("datum=")] + ["towgs84=" + (shift or "0,0,0")]
    flags = ("g" if geographic else "p") + ("n" if northing_first(crs) else "e")
    bounds = " ".join("%g" % v for v in (area.west, area.south, area.east, area.north))
    name = info.name.replace("\t", " ")
    return (int(info.code), flags, bounds, " ".join(keep), name), [(*p[:6], p[6] == shift) for p in points]


def main():
    table, points, refused = [], {}, Counter()
    # By code: a CRS with several areas of use is in the answer several times.
    known = {int(info.code): info
             for kind in (PJType.GEOGRAPHIC_2D_CRS, PJType.PROJECTED_CRS)
             for info in query_crs_info(auth_name="EPSG", pj_types=kind)}
    for code, info in sorted(known.items()):
        try:
            found = candidate(info)
        except Exception as e:
            found = type(e).__name__ + " " + str(e)[:60]
        if isinstance(found, str):
            refused[found] += 1
            if info.code in FIXTURE:
                print("refused", code, info.name, ":", found)
            continue
        table.append(found[0])
        points[code] = found[1]
    print("from PROJ", pyproj.proj_version_str, ":", len(table), "; refused", refused.most_common())

    with tempfile.TemporaryDirectory() as scratch:
        write_table(os.path.join(scratch, "table.tsv"), table)
        write_points(os.path.join(scratch, "points.tsv"), points, points)
        env = dict(os.environ, CRS_CANDIDATES=scratch, RUSTFLAGS="--cfg crs_candidates")
        subprocess.run(["cargo", "test", "--lib", "model::crs::tests::candidates"], check=True, env=env,
                       stdout=subprocess.DEVNULL)
        off = {}
        for line in open(os.path.join(scratch, "deviations.tsv")):
            code, mm = line.split("\t")
            off.setdefault(int(code), []).append(float(mm))
    listed, methods, regional = [], Counter(), 0
    for row in table:
        code, method = row[0], row[3].split()[0]
        same = [mm for mm, p in zip(off[code], points[code]) if p[6]]
        other = [mm for mm, p in zip(off[code], points[code]) if not p[6]]
        # Written so that NaN is refused.
        if max(same) <= EXACT_MM and max(other, default=0) <= REGIONAL_MM:
            listed.append(row)
            regional += bool(other)
            continue
        methods[method, "regional" if max(same) <= EXACT_MM else "differs"] += 1
        if str(code) in FIXTURE:
            print("proj4rs differs", code, row[4], "by", max(same), "mm, elsewhere", max(other, default=0))
    print("proj4rs differs:", methods.most_common())
    codes = {row[0] for row in listed}
    fixture = [int(c) for c in FIXTURE if int(c) in codes]
    write_table(os.path.join(HERE, "table.tsv"), listed)
    write_points(os.path.join(HERE, "points.tsv"), {c: [p for p in points[c] if p[6]] for c in fixture}, fixture, every=8)
    print("listed:", len(listed), "of which regional", regional, "; in the fixture:", len(fixture))


def write_table(path, table):
    with open(path, "w") as f:
        f.write("# Generated by generate.py from PROJ %s. code, kind and axis order, area of use, definition, name\n"
                % pyproj.proj_version_str)
        for row in table:
            f.write("\t".join(str(v) for v in row) + "\n")


def write_points(path, points, codes, every=1):
    with open(path, "w") as f:
        f.write("# Generated by generate.py from PROJ %s. code, longitude and latitude of WGS 84, x, y, back\n" % pyproj.proj_version_str)
        for code in codes:
            for lon, lat, x, y, back_lon, back_lat, _ in points[code][every // 2::every]:
                f.write("%d\t%.14g\t%.14g\t%r\t%r\t%.14g\t%.14g\n" % (code, lon, lat, x, y, back_lon, back_lat))


if __name__ == "__main__":
    sys.exit(main())
