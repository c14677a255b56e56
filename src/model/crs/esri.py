#!/usr/bin/env python3
"""Writes esri.tsv.gz: what programs of ESRI's and the `.prj` of a Shapefile call the CRS of table.tsv.

    python3 -m venv venv && venv/bin/pip install pyproj==3.7.2
    venv/bin/python src/model/crs/esri.py        # in the repository's root, after generate.py

A CRS without such a definition is left out.
"""

import gzip
import os
import warnings

import pyproj

warnings.simplefilter("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))


def definition(code):
    try:
        return pyproj.CRS.from_epsg(int(code)).to_wkt("WKT1_ESRI")
    except pyproj.exceptions.CRSError:
        return None


with open(os.path.join(HERE, "table.tsv"), encoding="utf-8") as table:
    codes = [line.split("\t")[0] for line in table if not line.startswith("#")]
lines = [f"{code}\t{wkt}\n" for code, wkt in zip(codes, map(definition, codes)) if wkt]
with open(os.path.join(HERE, "esri.tsv.gz"), "wb") as out:
    out.write(gzip.compress("".join(lines).encode(), 9, mtime=0))
