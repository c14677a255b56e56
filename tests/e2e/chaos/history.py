"""What happened, by the log's own account: an independent reader of its records, and the state of every feature at any position.

Reads the topics past the servers with kcat, as any consumer does (read committed), and the layout of `src/format/record.rs`
without its code. Knows only what the chaos types need: points and XYM lines.
"""
import bisect
import collections
import re
import struct
import subprocess

from load import PROPERTIES, TYPES

# A consumer's account of a record: partition, offset, and the lengths of what follows.
HEADER = re.compile(rb"(\d+) (\d+) (-?\d+) (-?\d+)\n")


def consume(brokers, topic):
    """Every record of a topic: partition, offset, key, value (None: none)."""
    done = subprocess.run(
        ["kcat", "-C", "-b", brokers, "-t", topic, "-o", "beginning", "-e", "-q", "-u", "-X", "isolation.level=read_committed",
         "-X", "enable.partition.eof=true", "-f", "%p %o %K %S\\n%k%s\\n"],
        capture_output=True, timeout=120,
    )
    assert done.returncode == 0, f"kcat: {done.stderr.decode()}"
    raw, at = done.stdout, 0
    while at < len(raw):
        match = HEADER.match(raw, at)
        partition, offset, key, value = map(int, match.groups())
        at = match.end()
        bytes_of_key, at = raw[at : at + max(key, 0)], at + max(key, 0)
        bytes_of_value, at = raw[at : at + max(value, 0)], at + max(value, 0) + 1
        yield partition, offset, bytes_of_key, None if value < 0 else bytes_of_value


def topics(brokers, prefix):
    """The topics by feature type."""
    listing = subprocess.run(["kcat", "-L", "-b", brokers], capture_output=True, text=True, check=True, timeout=60).stdout
    names = re.findall(r'topic "([^"]+)"', listing)
    found = {}
    for name in TYPES:
        of_type = [t for t in names if t.startswith(f"{prefix}{name}")]
        assert len(of_type) == 1, f"topics of {name}: {of_type}"
        found[name] = of_type[0]
    return found


class Source:
    """The bytes of a record."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        taken = self.data[self.at : self.at + n]
        assert len(taken) == n, "a record that ends too early"
        self.at += n
        return taken

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        n = shift = 0
        while True:
            b = self.byte()
            n |= (b & 0x7F) << shift
            shift += 7
            if b < 0x80:
                return n

    def signed(self):
        n = self.varint()
        return n >> 1 ^ -(n & 1)

    def bytes(self):
        return self.take(self.varint())

    def text(self):
        return self.bytes().decode()

    def double(self):
        return struct.unpack("<d", self.take(8))[0]

    def value(self):
        kind = self.byte()
        readers = {0: lambda: None, 1: lambda: False, 2: lambda: True, 3: self.signed, 4: self.double, 5: self.text}
        return readers[kind]()

    def properties(self):
        """By name."""
        pairs = [(self.varint(), self.value()) for _ in range(self.varint())]
        return {PROPERTIES[slot][0]: value for slot, value in pairs}


def changes_of(record):
    """The changes of a record, [id, what, value] as the journal has them; None: it is not a record of changes."""
    source = Source(record)
    magic, version, kind = source.byte(), source.byte(), source.byte()
    assert magic == 0xA1 and version <= 2, f"a record of format version {version}"
    if kind != 1:
        return None
    _schema, part, of = source.varint(), source.varint(), source.varint()
    assert (part, of) == (1, 1), "the load writes nothing that takes several records"
    changes = [change(source) for _ in range(source.varint())]
    assert source.at == len(record), "bytes left over"
    return changes


def change(source):
    tag = source.byte()
    if tag == 5:
        expected = expectation(source)
        what = change(source)
        return [what[0], "if", expected, what]
    feature_id = source.text()
    if tag == 1:
        geometry, values = coordinates(source.bytes()), [source.value() for _ in range(source.varint())]
        return [feature_id, "put", [geometry[0][:2], *values, *[None] * (len(PROPERTIES) - len(values))]]
    if tag == 2:
        assert source.byte() == 0, "the load patches no geometry"
        return [feature_id, "patch", source.properties()]
    if tag == 3:
        return [feature_id, "delete", None]
    assert tag == 4, f"a change of kind {tag}"
    n = source.varint()
    assert n & 1 == 0, "the load's fixes have no height"
    return [feature_id, "append", [[source.double() for _ in range(3)] for _ in range(n >> 1)], source.properties()]


def expectation(source):
    """Of a conditional change: tells by the version of its feature, None where it is not there, whether it takes effect."""
    kind = source.byte()
    if kind == 2:
        versions = [source.varint() for _ in range(source.varint())]
        return lambda version: version in versions
    return (lambda version: version is None) if kind == 0 else (lambda version: version is not None)


def coordinates(wkb):
    """The vertices of a point or a line of well-known binary, ISO's or PostGIS's."""
    order = "<" if wkb[0] else ">"
    (kind,) = struct.unpack_from(f"{order}I", wkb, 1)
    size = 3 if kind & 0x40000000 or kind // 1000 % 10 == 2 else 2
    at = 5 + (4 if kind & 0x20000000 else 0)
    count = 1
    if kind & 0xF == 2 or kind % 1000 == 2:
        (count,) = struct.unpack_from(f"{order}I", wkb, at)
        at += 4
    numbers = struct.unpack_from(f"{order}{count * size}d", wkb, at)
    return [list(numbers[i : i + size]) for i in range(0, len(numbers), size)]


def apply(before, what):
    """The state after a change; states are tuples, None is not there."""
    _, kind, value, *more = what
    if kind == "put":
        return freeze(value)
    if kind == "delete" or kind == "patch" and before is None:
        return None
    patch = value if kind == "patch" else more[0]
    place, *values = before or [(), *[None] * len(PROPERTIES)]
    values = [patch.get(name, old) for (name, _), old in zip(PROPERTIES, values)]
    if kind == "append":
        fixes = {fix[0]: fix for fix in place} | {fix[0]: tuple(fix) for fix in value}
        place = [fix for _, fix in sorted(fixes.items())]
    return freeze([place, *values])


def freeze(value):
    return tuple(map(freeze, value)) if isinstance(value, (list, tuple)) else value


class TypeHistory:
    """One feature type's log. States of a track have its fixes as (time, x, y)."""

    def __init__(self, name, records):
        self.name = name
        # By (partition, offset): the record's changes.
        self.records = {}
        # By id: its partition, the offsets of the changes that had an effect, and the state after each.
        self.partition, self.offsets, self.states = {}, collections.defaultdict(list), collections.defaultdict(list)
        self._sizes = {}
        self.ends = [0] * TYPES[name]["partitions"]
        for partition, offset, _key, value in records:
            self.ends[partition] = max(self.ends[partition], offset + 1)
            changes = changes_of(value)
            if changes is None:
                continue
            # Without those that were decided to do nothing.
            done = self.records[partition, offset] = []
            for what in changes:
                feature_id = what[0]
                self.partition[feature_id] = partition
                before = self.states[feature_id][-1] if self.states[feature_id] else None
                if what[1] == "if":
                    _, _, expected, what = what
                    if not expected(None if before is None else self.offsets[feature_id][-1]):
                        continue
                done.append(what)
                after = apply(before, what)
                if before is not None or after is not None:
                    self.offsets[feature_id].append(offset)
                    self.states[feature_id].append(after)

    def at(self, feature_id, position):
        """Its state when everything before `position` is applied; None: not there."""
        if feature_id not in self.partition:
            return None
        i = bisect.bisect_left(self.offsets[feature_id], position[self.partition[feature_id]])
        return self.states[feature_id][i - 1] if i else None

    def between(self, feature_id, low, high):
        """All states that it had from one position to another."""
        if feature_id not in self.partition:
            return {None}
        partition, offsets = self.partition[feature_id], self.offsets[feature_id]
        first, last = bisect.bisect_left(offsets, low[partition]), bisect.bisect_left(offsets, high[partition])
        return {None if i == 0 else self.states[feature_id][i - 1] for i in range(first, last + 1)}

    def counts(self, low, high):
        """How many features there may be at a moment between two positions: each partition moves on by itself."""
        sums = {0}
        for partition, (first, last) in enumerate(zip(low, high)):
            sizes = self.sizes(partition)
            begin, end = bisect.bisect_left(sizes, (first,)), bisect.bisect_left(sizes, (last,))
            of_this = {sizes[i - 1][1] if i else 0 for i in range(begin, end + 1)}
            sums = {a + b for a in sums for b in of_this}
        return sums

    def sizes(self, partition):
        """(offset, features from then on) for each change, in order."""
        if partition not in self._sizes:
            steps = collections.Counter()
            for feature_id, offsets in self.offsets.items():
                if self.partition[feature_id] == partition:
                    before = None
                    for offset, state in zip(offsets, self.states[feature_id]):
                        steps[offset] += (state is not None) - (before is not None)
                        before = state
            total, sizes = 0, []
            for offset in sorted(steps):
                total += steps[offset]
                sizes.append((offset, total))
            self._sizes[partition] = sizes
        return self._sizes[partition]

    def all(self, position):
        states = {feature_id: self.at(feature_id, position) for feature_id in self.partition}
        return {feature_id: state for feature_id, state in states.items() if state is not None}


def told(state):
    """A state as clients are told it: a track without times, with the vertex of a single fix twice."""
    if state is None:
        return None
    place, *values = state
    if place and isinstance(place[0], tuple):
        line = [fix[1:] for fix in place]
        place = tuple(line * 2 if len(line) == 1 else line)
    return (place, *values)
