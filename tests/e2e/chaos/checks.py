"""Holds the journal and the long-term store's rows against the log: every promise that was broken, in words.

The log decides what happened; the journal says what clients were told of it. Each function looks for one kind of breach; none
of them asks the servers anything. I1 to I9 are the invariants of docs/promises.md.
"""
import bisect
import collections
import json
import pickle

from history import coordinates, freeze, told
from load import PROPERTIES, TYPES

# The column of a feature's version, and how many examples of a breach are shown.
VERSION = "alluvium_version"
MOST = 5
# What a run leaves in its directory: the journal, and the log and the rows as they were at its end.
JOURNAL, END = "journal.jsonl", "end.pickle"


def keep_end(directory, records, rows):
    with open(directory / END, "wb") as file:
        pickle.dump((records, rows), file)


def recorded(directory):
    """The journal, the records of each topic, and PostGIS's rows."""
    with open(directory / END, "rb") as file:
        return Journal(directory / JOURNAL), *pickle.load(file)


class Journal:
    """What was noted, by kind; states are shared tuples, positions are by type."""

    def __init__(self, path):
        self.writes, self.reads, self.watermarks, self.statuses, self.faults = [], [], [], [], []
        lists = {"write": self.writes, "read": self.reads, "watermark": self.watermarks, "status": self.statuses, "fault": self.faults}
        seen = {}
        for line in open(path):
            event = json.loads(line)
            if "position" in event:
                event["position"] = parse(event["position"])
            if event.get("asked"):
                event["asked"] = parse(event["asked"])
            if "features" in event:
                frozen = {feature_id: freeze(state) for feature_id, state in event["features"].items()}
                event["features"] = {feature_id: seen.setdefault(state, state) for feature_id, state in frozen.items()}
            lists[event["op"]].append(event)
        # Answers by type that tell a position.
        self.answers = collections.defaultdict(list)
        for read in self.reads:
            if read["status"] == 200 and read["position"] and read["type"] in read["position"]:
                self.answers[read["type"]].append(read)
        # By (server, lane): when the requests that went well were answered, in order.
        self.successes = collections.defaultdict(list)
        for event in [*self.writes, *self.reads]:
            if event.get("outcome") == "acked" or event["op"] == "read" and event["status"] in (200, 404):
                self.successes[event["at"], event["lane"]].append(event["end"])
        for answers in self.successes.values():
            answers.sort()


def parse(token):
    """type -> offsets, of the header's value."""
    parts = [part.partition("@") for part in (token or "").split(";") if part]
    return {name: tuple(map(int, rest.partition("=")[2].split(","))) for name, _, rest in parts}


def violations(journal, logs, rows):
    """`logs`: type -> TypeHistory. `rows`: type -> {id: (state, version)} of PostGIS. Returns promise -> what broke it."""
    bounds = {name: Bounds(journal, name) for name in TYPES}
    checks = {
        "an acknowledged write is in the log, whole and once (I1, I7)": acknowledged(journal, logs),
        "what was refused is nowhere, what is unknown is whole or nowhere (I7)": refused(journal, logs),
        "writes one after the other stand so in the log": ordered(journal, logs),
        "a read is the state at its position, each feature once, counts exact (I2, I3, I5, I9)": exact(journal, logs),
        "a read is not before the position it asked for (I2)": asked(journal),
        "a server's answers never go back (I2)": monotonic(journal, bounds),
        "answers without a position are of their time (I2)": timely(journal, logs, bounds),
        "at the end every feature is as last acknowledged, or later (I1)": last_state(journal),
        "the delegate is the log's state (I4)": delegate(logs, rows),
        "watermarks only rise (I6)": watermarks(journal),
        "errors are of the promised kinds": errors(journal),
    }
    return {promise: list(found) for promise, found in checks.items()}


def describe(write):
    return f"write {write['n']} ({write['sent'][:2]} at {write['at']}, {write['outcome']} {write['status']})"


def by_mark(logs):
    """write -> its changes in the log, as (type, partition, offset, change)."""
    found = collections.defaultdict(list)
    for name, log in logs.items():
        for (partition, offset), changes in log.records.items():
            for what in changes:
                mark = mark_of(what)
                if mark is not None:
                    found[mark].append((name, partition, offset, what))
    return found


def mark_of(what):
    """The number of the write that a change is of; None of a deletion."""
    _, kind, value, *more = what
    if kind == "put":
        return value[1]
    if kind == "delete":
        return None
    return (value if kind == "patch" else more[0])["mark"]


def is_that(sent, n, what):
    """Whether a change of the log is what a write has sent."""
    _, feature_id, kind, value = sent
    if what[:2] != [feature_id, kind]:
        return False
    if kind == "append":
        return what[2] == [value] and what[3] == {"mark": n}
    return kind == "delete" or what[2] == value


def acknowledged(journal, logs):
    marked = by_mark(logs)
    for write in journal.writes:
        if write["outcome"] != "acked":
            continue
        # Its position is that behind its own records.
        ends = [(name, p, end - 1) for name, ends in write["position"].items() for p, end in enumerate(ends) if end]
        there = [(name, what) for name, p, offset in ends for what in logs[name].records.get((p, offset), [])]
        found = sum(any(name == sent[0] and is_that(sent, write["n"], what) for name, what in there) for sent in write["sent"])
        if found != write["found"]:
            yield f"{describe(write)}: {found} of {write['found']} changes are at {write['position']}, there is {there[:3]}"
        elif write["sent"][0][2] != "delete" and len(marked[write["n"]]) != found:
            yield f"{describe(write)}: {len(marked[write['n']])} changes in the log, not {found}"


def refused(journal, logs):
    marked = by_mark(logs)
    deleted = collections.Counter()
    for name, log in logs.items():
        deleted.update((name, what[0]) for changes in log.records.values() for what in changes if what[1] == "delete")
    may_delete = collections.Counter()
    for write in journal.writes:
        deletes = write["sent"][0][2] == "delete"
        if deletes and write["outcome"] != "refused":
            may_delete.update((name, feature_id) for name, feature_id, _, _ in write["sent"])
            if len(write["sent"]) > 1:
                there = sum(deleted[name, feature_id] > 0 for name, feature_id, _, _ in write["sent"])
                if there not in (0, len(write["sent"])):
                    yield f"{describe(write)}: {there} of {len(write['sent'])} deletions are in the log"
        found = marked[write["n"]]
        if write["outcome"] == "refused" and found:
            yield f"{describe(write)} is in the log: {found[:2]}"
        # What a transaction updates it looks up first: of those alone it is not known how many there should be.
        looked_up = write["sent"][0][2] == "patch" and len(write["sent"]) > 1
        if write["outcome"] == "unknown" and not deletes and not looked_up and len(found) not in (0, len(write["sent"])):
            yield f"{describe(write)}: {len(found)} of {len(write['sent'])} changes are in the log: {found[:2]}"
    sent = {write["n"] for write in journal.writes}
    for mark in marked.keys() - sent:
        if marked[mark]:
            yield f"nobody sent what is in the log: {marked[mark][:2]}"
    for (name, feature_id), times in deleted.items():
        if times > may_delete[name, feature_id]:
            yield f"{name} {feature_id} is deleted {times} times in the log, by {may_delete[name, feature_id]} requests"


def ordered(journal, logs):
    """Of writes of one feature: one that was begun when another had been acknowledged stands behind it."""
    marked = by_mark(logs)
    acked = sorted((w for w in journal.writes if w["outcome"] == "acked" and marked[w["n"]]), key=lambda w: w["end"])
    # By feature: the ends of the writes so far, and the greatest offset of any of them.
    seen = collections.defaultdict(lambda: ([], []))
    for write in acked:
        for name, _, offset, what in marked[write["n"]]:
            ends, greatest = seen[name, what[0]]
            ends.append(write["end"])
            greatest.append(max(offset, greatest[-1] if greatest else -1))
    for write in acked:
        for name, _, offset, what in marked[write["n"]]:
            ends, greatest = seen[name, what[0]]
            before = bisect.bisect_left(ends, write["begin"])
            if before and greatest[before - 1] >= offset:
                yield f"{describe(write)} stands at {offset}, before one that was acknowledged when it was sent, at {greatest[before - 1]}"


def exact(journal, logs):
    for name, log in logs.items():
        reads = journal.answers[name]
        counts = [0] * len(reads)
        for partition in range(TYPES[name]["partitions"]):
            changes = sorted((o, changes) for (p, o), changes in log.records.items() if p == partition)
            order = sorted(range(len(reads)), key=lambda i: reads[i]["position"][name][partition])
            live, at = {}, 0
            for i in order:
                read = reads[i]
                while at < len(changes) and changes[at][0] < read["position"][name][partition]:
                    for what in changes[at][1]:
                        live[what[0]] = told(log.at(what[0], only(partition, changes[at][0] + 1, name)))
                        if live[what[0]] is None:
                            del live[what[0]]
                    at += 1
                answer = {f: state for f, state in read["features"].items() if log.partition.get(f, partition) == partition}
                expected = expectation(read, live, answer)
                counts[i] += len(expected)
                if answer != expected and read["kind"] != "hits":
                    yield f"{name} at {read['at']}, {read['kind']} at {read['position'][name]}: {difference(answer, expected)}"
        for read, count in zip(reads, counts):
            if read["doubles"]:
                yield f"{name} at {read['at']}, {read['kind']}: {read['doubles']} features twice"
            if read["kind"] in ("all", "bbox", "hits") and read["matched"] not in (None, count):
                yield f"{name} at {read['at']}, {read['kind']} at {read['position'][name]}: numberMatched {read['matched']}, not {count}"


def only(partition, offset, name):
    return [offset if p == partition else 0 for p in range(TYPES[name]["partitions"])]


def expectation(read, live, answer):
    """What a read should have told of a partition in which these features live."""
    if read["kind"] in ("all", "hits"):
        return live
    if read["kind"] == "bbox":
        west, south, east, north = read["bbox"]
        return {f: s for f, s in live.items() if west <= s[0][0] <= east and south <= s[0][1] <= north}
    if read["kind"] == "tier":  # which of them are in memory is not ours to say
        return {f: live.get(f) for f in answer}
    return {f: s for f, s in live.items() if f == read["id"]}


def difference(answer, expected):
    missing, more = sorted(expected.keys() - answer.keys()), sorted(answer.keys() - expected.keys())
    other = [f"{f} is {answer[f]}, not {expected[f]}" for f in sorted(answer.keys() & expected.keys()) if answer[f] != expected[f]]
    return f"missing {missing[:MOST]}, too many {[(f, answer[f]) for f in more[:MOST]]}, other {other[:MOST]}"


def asked(journal):
    for name, reads in journal.answers.items():
        for read in reads:
            least = read["asked"] and read["asked"].get(name)
            if least and behind(read["position"][name], least):
                yield f"{name} at {read['at']}: {read['position'][name]}, asked for {least}"


def behind(position, least):
    return any(a < b for a, b in zip(position, least))


class Bounds:
    """What a server had shown by a time, and what it showed later: between them lies every answer in between."""

    def __init__(self, journal, name):
        self.floors, self.ceilings = {}, {}
        for server in {read["at"] for read in journal.answers[name]}:
            answers = [(r["end"], r["position"][name]) for r in journal.answers[name] if r["at"] == server]
            # 202 and WFS do not say that this server shows the write already.
            answers += [
                (w["end"], w["position"][name]) for w in journal.writes
                if w["at"] == server and w["status"] in (201, 204) and name in w["position"]
            ]
            self.floors[server] = accumulated(sorted(answers), max)
            begun = [(-r["begin"], r["position"][name]) for r in journal.answers[name] if r["at"] == server]
            self.ceilings[server] = accumulated(sorted(begun), min)

    def floor(self, server, time):
        """The latest position that an answer of this server had told by then; None: there was none."""
        return self._last(self.floors[server], time) if server in self.floors else None

    def ceiling(self, server, time):
        """The earliest position of its answers to requests that were sent after then."""
        return self._last(self.ceilings[server], -time) if server in self.ceilings else None

    @staticmethod
    def _last(bounds, time):
        times, positions = bounds
        i = bisect.bisect_left(times, time)
        return positions[i - 1] if i else None


def accumulated(timed, choose):
    times, positions = [], []
    for time, position in timed:
        times.append(time)
        positions.append(tuple(map(choose, position, positions[-1])) if positions else position)
    return times, positions


def monotonic(journal, bounds):
    for name, reads in journal.answers.items():
        for read in reads:
            floor = bounds[name].floor(read["at"], read["begin"])
            if floor and behind(read["position"][name], floor):
                yield f"{name} at {read['at']}: {read['position'][name]} after {floor}"


def timely(journal, logs, bounds):
    """That a feature is not there comes without a position, and hits may."""
    for read in journal.reads:
        name = read["type"]
        absent = read["kind"] == "one" and read["status"] == 404
        if not absent and (read["kind"] != "hits" or read["status"] != 200 or read["position"]):
            continue
        low = bounds[name].floor(read["at"], read["begin"]) or (0,) * TYPES[name]["partitions"]
        high = bounds[name].ceiling(read["at"], read["end"]) or tuple(logs[name].ends)
        if read["asked"] and name in read["asked"]:
            low = tuple(map(max, low, read["asked"][name]))
        if absent:
            if None not in logs[name].between(read["id"], low, high):
                yield f"{name} {read['id']} at {read['at']}: 404 between {low} and {high}"
        elif not (possible := logs[name].counts(low, high)) or read["matched"] not in possible:
            yield f"{name} at {read['at']}: {read['matched']} hits, between {low} and {high} there are {sorted(possible)}"


def last_state(journal):
    """Without the log: each property of each feature at the last quiet point is of a write after which none was acknowledged."""
    final = {}
    for read in journal.reads:
        if read.get("final"):
            final.setdefault(read["type"], []).append(read["features"])
    assert len(final) == len(TYPES), "the run had no quiet end"
    # By (type, id, property): (begin, end, outcome, value) of all that wrote it.
    written = collections.defaultdict(list)
    for write in journal.writes:
        if write["outcome"] == "refused":
            continue
        all_sure = write["outcome"] == "acked" and write["found"] == len(write["sent"])
        for name, feature_id, kind, value in write["sent"]:
            values = values_of(kind, value, write["n"])
            for slot, v in values.items():
                written[name, feature_id, slot].append((write["begin"], write["end"], all_sure, v))
    for name, answers in final.items():
        for features in answers:
            for (of, feature_id, slot), writes in written.items():
                if of != name:
                    continue
                state = features.get(feature_id)
                value = None if state is None else state[1 + slot]
                latest = max((begin for begin, _, sure, _ in writes if sure), default=0)
                # Unknown ones may have come at any time later.
                possible = {v for _, end, sure, v in writes if not sure or end >= latest}
                if value not in possible and (latest or value is not None):
                    yield f"{name} {feature_id}.{PROPERTIES[slot][0]} is {value}, it can only be {sorted(possible, key=str)[:MOST]}"


def values_of(kind, value, n):
    """property -> value that a change sets; a deletion sets all to None."""
    if kind == "put":
        return dict(enumerate(value[1:]))
    if kind == "delete":
        return dict.fromkeys(range(len(PROPERTIES)))
    names = {"mark": n} if kind == "append" else value
    return {slot: names[name] for slot, (name, _) in enumerate(PROPERTIES) if name in names}


def delegate(logs, rows):
    for name, log in logs.items():
        expected = {
            feature_id: (state, log.offsets[feature_id][-1]) for feature_id, state in log.all(log.ends).items()
        }
        if rows[name] != expected:
            yield f"{name}: {difference(rows[name], expected)}"


def rows_of(database, name):
    """PostGIS's rows, geometry by its own well-known binary."""
    columns = ", ".join(f'"{p}"' for p, _ in PROPERTIES)
    rows = {}
    for feature_id, version, geometry, *values in database.query(
        f"SELECT id, {VERSION}, encode(ST_AsBinary(geom), 'hex'), {columns} FROM \"{name}\""
    ):
        place = coordinates(bytes.fromhex(geometry))
        if len(place) == 1 and len(place[0]) == 2:
            place = place[0]
        else:
            # Time first, as in the log; the second vertex of a single fix stands for the first once more.
            place = [[t, x, y] for x, y, t in place]
            place = place[:1] if len(place) == 2 and place[0][1:] == place[1][1:] and place[1][0] - place[0][0] < 1e-6 else place
        typed = [v if v is None or kind == "string" else int(v) for v, (_, kind) in zip(values, PROPERTIES)]
        # The first offset stands there as -1: 0 are the rows of others.
        rows[feature_id] = (freeze([place, *typed]), max(int(version), 0))
    return rows


def watermarks(journal):
    last = {}
    for sample in journal.watermarks:
        before = last.get(sample["name"], [0, 0, 0])
        if behind(sample["values"], before):
            yield f"{sample['name']}: (durable_through, evict_through, as_of) {sample['values']} after {before}"
        last[sample["name"]] = sample["values"]


def errors(journal):
    for event in [*journal.reads, *journal.writes]:
        fine = (None, 200, 201, 202, 204, 404, 412, 503, 504) if event["op"] == "write" else (None, 200, 404, 503)
        if event["status"] not in fine:
            yield f"{event['op']} at {event['at']}: {event['status']} {event.get('why')}"
