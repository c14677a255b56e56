"""Whether the checks can fail: a run's own record, falsified as a server that breaks its promises would have left it."""
import random

import checks
from history import TypeHistory


def each(directory):
    """Falsifies the record of a run without a breach in every way below; raises when one is not noticed as it should be."""
    assert not noticed(*checks.recorded(directory)), "the record is of a run in which promises were broken"
    for falsify, promise in FALSIFICATIONS.items():
        journal, records, rows = checks.recorded(directory)
        falsify(random.Random(1), journal, records, rows)
        found = noticed(journal, records, rows)
        assert any(promise in p for p in found), f"{falsify.__name__} was not noticed, but {found}"
        print(f"noticed: {falsify.__doc__}", flush=True)


def noticed(journal, records, rows):
    logs = {name: TypeHistory(name, of_type) for name, of_type in records.items()}
    return [promise for promise, found in checks.violations(journal, logs, rows).items() if found]


def lost_write(chance, journal, records, rows):
    """an acknowledged write is not in the log"""
    write = chance.choice([w for w in journal.writes if w["outcome"] == "acked" and w["sent"][0][2] == "put"])
    name, ends = next((name, ends) for name, ends in write["position"].items())
    places = {(p, end - 1) for p, end in enumerate(ends) if end}
    records[name] = [r for r in records[name] if r[:2] not in places]


def written_though_refused(chance, journal, records, rows):
    """a write that was refused is in the log"""
    write = chance.choice([w for w in journal.writes if w["outcome"] == "acked" and w["sent"][0][2] == "put"])
    write["outcome"] = "refused"


def torn(chance, journal, records, rows):
    """a transaction without an answer is in the log by half"""
    write = chance.choice([w for w in journal.writes if w["outcome"] == "acked" and w["sent"][0][2] == "put" and len(w["sent"]) > 2])
    write["outcome"] = "unknown"
    name, feature_id, kind, value = write["sent"][0]
    write["sent"].append([name, "never", kind, value])


def stale_row(chance, journal, records, rows):
    """a read has an older state of a feature"""
    earlier = {}
    for read in sorted(journal.answers["ships"], key=lambda r: r["begin"]):
        for feature_id, state in read["features"].items():
            if earlier.setdefault(feature_id, state) != state and read["kind"] == "all":
                read["features"][feature_id] = earlier[feature_id]
                return
    raise AssertionError("no ship changed")


def back_from_the_dead(chance, journal, records, rows):
    """a read has a feature that is not there"""
    read, feature_id = some_answer(chance, journal)
    read["features"]["ghost"] = read["features"][feature_id]


def missing_feature(chance, journal, records, rows):
    """a read lacks a feature"""
    read, feature_id = some_answer(chance, journal)
    del read["features"][feature_id]


def counted_twice(chance, journal, records, rows):
    """numberMatched is one more than there are"""
    read, _ = some_answer(chance, journal)
    read["matched"] += 1


def went_back(chance, journal, records, rows):
    """an answer is older than one before it, and true for its own position"""
    reads = [r for r in journal.answers["ships"] if r["at"] == "server-0" and r["kind"] == "all"]
    old, new = reads[0], reads[-1]
    for key in ("position", "features", "matched"):
        new[key] = old[key]
    new["asked"] = None


def absent_though_there(chance, journal, records, rows):
    """a server says that a feature is not there which was there all the time"""
    read = next(r for r in journal.reads if r["status"] == 404)
    there = [r for r in journal.answers["buoys"] if r["kind"] == "all" and r["at"] == "server-0"]
    for before, after in zip(there, there[1:]):
        same = [f for f in before["features"].keys() & after["features"].keys() if before["features"][f] == after["features"][f]]
        if same and after["begin"] - before["end"] > 0.01:
            middle = (before["end"] + after["begin"]) / 2
            read.update(at="server-0", type="buoys", id=same[0], asked=None, begin=middle, end=middle)
            return
    raise AssertionError("no feature rested between two reads")


def lost_row(chance, journal, records, rows):
    """PostGIS lacks a row at the end"""
    rows["buoys"].popitem()


def old_row(chance, journal, records, rows):
    """PostGIS has a row of an older version at the end"""
    feature_id, (state, version) = rows["ships"].popitem()
    rows["ships"][feature_id] = (state, version - 1)


def watermark_back(chance, journal, records, rows):
    """a watermark has fallen"""
    sample = chance.choice([s for s in journal.watermarks if s["values"][0] > 10])
    journal.watermarks.append({**sample, "values": [v - 1 for v in sample["values"]]})


def forgotten_at_the_end(chance, journal, records, rows):
    """by the journal alone: the last write of a feature is not to be seen at the end"""
    for read in journal.reads:
        if read.get("final"):
            read["features"] = {f: (state[0], 1, *state[2:]) for f, state in read["features"].items()}


def some_answer(chance, journal):
    """One of a whole type that has features, and a feature of it."""
    read = chance.choice([r for reads in journal.answers.values() for r in reads if r["kind"] == "all" and r["matched"]])
    return read, chance.choice(sorted(read["features"]))


FALSIFICATIONS = {
    lost_write: "acknowledged write is in the log",
    written_though_refused: "what was refused is nowhere",
    torn: "unknown is whole or nowhere",
    stale_row: "a read is the state",
    back_from_the_dead: "a read is the state",
    missing_feature: "a read is the state",
    counted_twice: "counts exact",
    went_back: "never go back",
    absent_though_there: "of their time",
    lost_row: "the delegate is",
    old_row: "the delegate is",
    watermark_back: "watermarks only rise",
    forgotten_at_the_end: "as last acknowledged",
}
