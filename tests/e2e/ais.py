"""The real ship reports of demo/, as features of a type that has all of the file's columns."""
import csv
import gzip
import io

from lib import ROOT, feature, point

FILE = ROOT / "demo/ais-2022-01-03.csv.gz"


def instant(text):
    return f"{text}Z"  # the file's times are UTC


# The file's column, the property, its type, and how the file's text becomes a JSON value.
COLUMNS = [
    ("MMSI", "mmsi", "int64", int),
    ("BaseDateTime", "time", "date-time", instant),
    ("SOG", "sog", "number", float),
    ("COG", "cog", "number", float),
    ("Heading", "heading", "int32", int),
    ("VesselName", "name", "string", str),
    ("IMO", "imo", "string", str),
    ("CallSign", "callsign", "string", str),
    ("VesselType", "vessel_type", "int32", int),
    ("Status", "status", "int32", int),
    ("Length", "length", "number", float),
    ("Width", "width", "number", float),
    ("Draft", "draft", "number", float),
    ("Cargo", "cargo", "int32", int),
    ("TransceiverClass", "class", "string", str),
]


def declaration(name, expiry):
    return {
        "id": name,
        "title": "Ships",
        "geometry": {"type": "Point", "epsg": 4326},
        "properties": [{"name": p, "type": kind, "index": p == "mmsi"} for _, p, kind, _ in COLUMNS],
        "expiry": expiry,
    }


def reports():
    """Every report, in the file's order, as a feature whose id is the ship's number."""
    with gzip.open(FILE, "rt", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            properties = {p: parse(row[column]) if row[column] else None for column, p, _, parse in COLUMNS}
            yield feature(row["MMSI"], point(float(row["LON"]), float(row["LAT"])), **properties)
