"""The load: writers and readers, each bound to one server, and the journal of what they sent and were told.

The journal is a file of one JSON object a line; times are seconds of the machine's monotonic clock. Every write has a number,
`n`, which stands in each feature that it writes as the property `mark`, so that the log and every answer tell which write made
them. What is asked of whom is random; what is checked needs no agreement between the writers, who share all features.

  write    n, at, begin, end, kind, sent: [[type, id, what, value]...], outcome, status, position, found
           `sent`: what it should do. what: put (value: the state), patch (the properties), append (the fix), delete.
           outcome: acked; refused (nothing may have happened); unknown (all or nothing may have, at any time later).
           found: how many features it was told to have changed, where it is not all of `sent`.
  read     at, lane, begin, end, kind, type, asked, status, position, matched, features: {id: state}, doubles,
           id or bbox or tier
  status   at, time, owned: the partitions that it sweeps by its own account, "type partition"
  watermark  time, name: "type partition", values: [durable_through, evict_through, as_of]
"""
import json
import random
import subprocess
import threading
import time
import xml.etree.ElementTree as ET

from lib import LOST, NDJSON, POSITION, die_with_parent, feature, ndjson, point

PATIENCE_S = 15
PROPERTIES = [("mark", "int64"), ("a", "int64"), ("b", "int64"), ("text", "string")]

# Several short expiries, so that everything ages all the time: some features rest before they are written again, some never.
TYPES = {
    "ships": {"geometry": {"type": "Point"}, "expiry": 0.2, "partitions": 1},
    "buoys": {"geometry": {"type": "Point"}, "expiry": 1.5, "max_dirty": 3, "partitions": 3},
    "trips": {"geometry": {"type": "LineString", "dimension": "XYM"}, "track": {}, "expiry": 0.5, "max_dirty": 2, "partitions": 2},
}
POINTS = ("ships", "buoys")
IDS = {"ships": 40, "buoys": 40, "trips": 10}
# A track's fixes have one of so many times, so that its line does not grow for ever.
TIMES, EPOCH = 100, 1_700_000_000
ALL = "limit=10000"


def declarations():
    properties = [{"name": name, "type": kind} for name, kind in PROPERTIES]
    return [{"id": name, "properties": properties, **settings} for name, settings in TYPES.items()]


class Journal:
    def __init__(self, path):
        self._file = open(path, "w")
        self._lock = threading.Lock()
        self._last = 0
        # By (server, lane, feature type): when the last request that went well was begun.
        self.well = {}

    def number(self):
        with self._lock:
            self._last += 1
            return self._last

    def note(self, **event):
        line = json.dumps(event, separators=(",", ":"))
        with self._lock:
            self._file.write(line + "\n")
            if event.get("outcome") == "acked" or event["op"] == "read" and event["status"] == 200:
                for name in {sent[0] for sent in event["sent"]} if event["op"] == "write" else {event["type"]}:
                    self.well[event["at"], event["lane"], name] = event["begin"]

    def close(self):
        with self._lock:
            self._file.close()


class Worker(threading.Thread):
    """Does one thing after another until it is told to stop. A failure of its own is told by `check`."""

    pause_s = 0.05

    def __init__(self, journal, instance, chance):
        super().__init__(daemon=True)
        self.journal, self.at, self.chance = journal, instance.name, chance
        self.client = instance.client(timeout=PATIENCE_S)
        self.stopped = threading.Event()
        self.failure = None

    def run(self):
        try:
            while not self.stopped.wait(self.chance.uniform(0, 2 * self.pause_s)):
                self.step()
        except Exception as failure:
            self.failure = failure

    def check(self):
        if self.failure:
            raise self.failure


class Shared:
    """What the workers tell each other: the last position of each writer."""

    def __init__(self):
        self.position = None
        # Groups of features that one transaction has inserted and none has deleted.
        self.groups = []
        self.lock = threading.Lock()


class Writer(Worker):
    KINDS = {"put": 6, "claim": 4, "patch": 6, "delete": 3, "append": 4, "upload": 1, "insert": 2, "mixed": 2, "remove": 1}

    def __init__(self, journal, instance, chance, shared):
        super().__init__(journal, instance, chance)
        self.shared = shared

    def step(self):
        kind = self.chance.choices(list(self.KINDS), self.KINDS.values())[0]
        self.n = self.journal.number()
        getattr(self, kind)()

    def some_id(self, name):
        return f"{name[0]}{self.chance.randrange(IDS[name])}"

    def state(self):
        """A point's whole state: the coordinates, then the properties."""
        return [self.some_place(), self.n, self.n, self.n, f"write {self.n}"]

    def some_place(self):
        return [self.chance.randrange(-180, 180), self.chance.randrange(-90, 90)]

    def put(self):
        name, state = self.chance.choice(POINTS), self.state()
        feature_id = self.some_id(name)
        self.send("PUT", f"/collections/{name}/items/{feature_id}", [[name, feature_id, "put", state]], as_feature(feature_id, state))

    def claim(self):
        """Replaces a feature in the version in which it was just seen, or makes one that was not there: when it has changed since
        then, nothing is done."""
        name, state = self.chance.choice(POINTS), self.state()
        feature_id = self.some_id(name)
        path = f"/collections/{name}/items/{feature_id}"
        try:
            seen = self.client.get(path)
        except LOST:
            return
        # Whoever was not answered expects nothing.
        etag = seen.headers.get("ETag")
        if etag or seen.status == 404:
            expected = {"If-Match": etag} if etag else {"If-None-Match": "*"}
            self.send("PUT", path, [[name, feature_id, "put", state]], as_feature(feature_id, state), expected=expected)

    def patch(self):
        """Two writers that patch `a` and `b` of one feature at the same time must both be heard."""
        name, slot = self.chance.choice([*POINTS, "trips"]), self.chance.choice(["a", "b"])
        feature_id = self.some_id(name)
        values = {"mark": self.n, slot: self.n}
        self.send("PATCH", f"/collections/{name}/items/{feature_id}", [[name, feature_id, "patch", values]], {"properties": values},
                  "application/merge-patch+json")

    def delete(self):
        name = self.chance.choice([*POINTS, "trips"])
        feature_id = self.some_id(name)
        self.send("DELETE", f"/collections/{name}/items/{feature_id}", [[name, feature_id, "delete", None]])

    def append(self):
        feature_id = self.some_id("trips")
        instant, place = EPOCH + self.chance.randrange(TIMES), self.some_place()
        body = {"time": instant, "coordinates": place, "properties": {"mark": self.n}}
        sent = [["trips", feature_id, "append", [instant, *place]]]
        self.send("POST", f"/collections/trips/items/{feature_id}/track", sent, body, "application/json")

    def upload(self):
        """Lines, few enough to be one batch, which is all or nothing."""
        name = self.chance.choice(POINTS)
        ids = self.chance.sample([f"{name[0]}{i}" for i in range(IDS[name])], 8)
        states = [(feature_id, self.state()) for feature_id in ids]
        body = ndjson([as_feature(*pair) for pair in states])
        self.send("POST", f"/collections/{name}/items", [[name, i, "put", s] for i, s in states], body, NDJSON)

    def insert(self):
        """A transaction over two types and several partitions, of features that were never there: all or nothing."""
        group = [(name, f"{name[0]}-{self.n}-{i}") for name in POINTS for i in range(self.chance.randint(1, 4))]
        sent = [[name, feature_id, "put", self.state()] for name, feature_id in group]
        actions = "".join(f'<Insert idgen="UseExisting">{as_gml(name, i, state)}</Insert>' for name, i, _, state in sent)
        if self.transaction(sent, actions) != "refused":
            with self.shared.lock:
                self.shared.groups.append(group)

    def remove(self):
        """Deletes such a group in one transaction, so that they do not become ever more."""
        with self.shared.lock:
            group = self.shared.groups.pop(0) if self.shared.groups else []
        if group:
            self.transaction([[name, i, "delete", None] for name, i in group], "".join(as_delete(*f) for f in group), "Deleted")

    def mixed(self):
        """Updates of several features; of those that are not there it tells by its totals."""
        chosen = {(name, self.some_id(name)) for name in POINTS for _ in range(3)}
        values = {"mark": self.n, "a": self.n}
        sent = [[name, i, "patch", values] for name, i in sorted(chosen)]
        self.transaction(sent, "".join(as_update(name, i, values) for name, i, _, _ in sent), "Updated")

    def transaction(self, sent, actions, total=None):
        """`total`: which of the answer's totals says how many features there were to change."""
        body = (
            '<Transaction service="WFS" version="2.0.0" xmlns="http://www.opengis.net/wfs/2.0" xmlns:app="urn:alluvium:app" '
            f'xmlns:fes="http://www.opengis.net/fes/2.0" xmlns:gml="http://www.opengis.net/gml/3.2">{actions}</Transaction>'
        )
        return self.send("POST", "/wfs", sent, body, "text/xml", total)

    def send(self, method, path, sent, body=None, content_type="application/geo+json", total=None, expected=None):
        begin, answer, outcome, found = time.monotonic(), None, "unknown", len(sent)
        headers = {**(expected or {}), **({"Content-Type": content_type} if body is not None else {})}
        try:
            answer = self.client.request(method, path, body, headers)
            outcome = outcome_of(answer.status)
            if outcome == "acked" and total:
                found = int(ET.fromstring(answer.body).findtext(f".//{{*}}total{total}", "0"))
        except ConnectionRefusedError:
            outcome = "refused"
        except LOST:
            pass
        if outcome == "acked":
            with self.shared.lock:
                self.shared.position = answer.position or self.shared.position
        status = answer and answer.status
        self.journal.note(
            op="write", n=self.n, at=self.at, lane="write", begin=begin, end=time.monotonic(), sent=sent, outcome=outcome,
            status=status, position=answer and answer.position, found=found,
            **({} if outcome == "acked" or not answer else {"why": str(answer)[:300]}),
        )
        if outcome != "acked" and status not in (404, 412):
            time.sleep(0.1)
        return outcome


def outcome_of(status):
    """503 and what is the client's own fault say that nothing was written; 504 that nobody knows."""
    if 200 <= status < 300:
        return "acked"
    return "refused" if status == 503 or 400 <= status < 500 else "unknown"


class Reader(Worker):
    """Whole types, parts of them, single features, over both protocols."""

    lane = "read"
    KINDS = {"all": 3, "bbox": 3, "one": 4, "hits": 1, "wfs": 2}

    def __init__(self, journal, instance, chance, shared):
        super().__init__(journal, instance, chance)
        self.shared = shared

    def step(self):
        kind = self.chance.choices(list(self.KINDS), self.KINDS.values())[0]
        name, asked = self.chance.choice(list(TYPES)), self.position()
        wfs = f"/wfs?service=WFS&version=2.0.0&request=GetFeature&typeNames={name}"
        if kind == "all":
            self.ask(kind, name, f"/collections/{name}/items?{ALL}", asked)
        elif kind == "bbox":
            x, y = self.chance.randrange(-180, 90), self.chance.randrange(-90, 0)
            bbox = [x, y, x + 90, y + 90]
            name = self.chance.choice(POINTS)
            self.ask(kind, name, f"/collections/{name}/items?{ALL}&bbox={','.join(map(str, bbox))}", asked, bbox=bbox)
        elif kind == "one":
            feature_id = f"{name[0]}{self.chance.randrange(IDS[name])}"
            self.ask(kind, name, f"/collections/{name}/items/{feature_id}", asked, id=feature_id)
        elif kind == "hits":
            self.ask(kind, name, f"{wfs}&resultType=hits", asked)
        else:
            self.ask("all", name, f"{wfs}&outputFormat=application/json", asked)

    def position(self):
        """Not to be answered from before it."""
        return None

    def ask(self, kind, name, path, asked, **more):
        begin = time.monotonic()
        headers = {POSITION: asked} if asked else {}
        try:
            answer = self.client.request("GET", path, headers=headers)
        except LOST as e:
            self.journal.note(op="read", at=self.at, lane=self.lane, begin=begin, end=time.monotonic(), kind=kind, type=name,
                              status=None, why=repr(e))
            time.sleep(0.1)
            return
        event = dict(op="read", at=self.at, lane=self.lane, begin=begin, end=time.monotonic(), kind=kind, type=name, asked=asked,
                     status=answer.status, position=answer.position, **more)
        if answer.status == 200:
            event |= content(kind, name, answer)
        else:
            event["why"] = str(answer)[:300]
        self.journal.note(**event)
        if answer.status not in (200, 404):
            time.sleep(0.1)


class FollowingReader(Reader):
    """Reads what has just been written, here or at another server; while Kafka is away it must wait."""

    lane = "after"
    pause_s = 0.15

    def position(self):
        return self.shared.position


class TransientReader(Reader):
    """The tier in memory alone, which needs no long-term store."""

    lane = "transient"
    pause_s = 0.1

    def step(self):
        name = self.chance.choice(list(TYPES))
        self.ask("tier", name, f"/collections/{name}/items?{ALL}&tier=transient", None, tier="transient")


def content(kind, name, answer):
    if kind == "hits":
        return {"matched": int(ET.fromstring(answer.body).get("numberMatched")), "features": {}, "doubles": 0}
    body = answer.json()
    features = [body] if kind == "one" else body["features"]
    # WFS puts the type's name before an id.
    states = {f["id"].removeprefix(f"{name}."): state_of(f) for f in features}
    return {"features": states, "matched": body.get("numberMatched"), "doubles": len(features) - len(states)}


def state_of(f):
    return [f["geometry"] and f["geometry"]["coordinates"], *(f["properties"].get(name) for name, _ in PROPERTIES)]


def as_feature(feature_id, state):
    place, *values = state
    return feature(feature_id, point(*place), **{name: v for (name, _), v in zip(PROPERTIES, values)})


def as_gml(name, feature_id, state):
    (x, y), *values = state
    properties = "".join(f"<app:{p}>{v}</app:{p}>" for (p, _), v in zip(PROPERTIES, values))
    # The urn that features are told in has the latitude first.
    place = f"<app:geom><gml:Point><gml:pos>{y} {x}</gml:pos></gml:Point></app:geom>"
    return f'<app:{name} gml:id="{name}.{feature_id}">{place}{properties}</app:{name}>'


def the_one(name, feature_id):
    return f'<fes:Filter><fes:ResourceId rid="{name}.{feature_id}"/></fes:Filter>'


def as_update(name, feature_id, values):
    properties = "".join(
        f"<Property><ValueReference>{p}</ValueReference><Value>{v}</Value></Property>" for p, v in values.items()
    )
    return f'<Update typeName="app:{name}">{properties}{the_one(name, feature_id)}</Update>'


def as_delete(name, feature_id):
    return f'<Delete typeName="app:{name}">{the_one(name, feature_id)}</Delete>'


class StatusWatch(Worker):
    """Which partitions a server sweeps and how far it has come in each, by its own account."""

    pause_s = 0.1

    def __init__(self, journal, instance, owned, applied):
        super().__init__(journal, instance, random.Random())
        self.client = instance.client(timeout=2)
        self.owned, self.applied = owned, applied
        self.told = None

    def step(self):
        try:
            answer = self.client.get("/admin/status")
            # One that waits for its parts as it starts says 503.
            partitions = answer.json()["partitions"] if answer.status == 200 else []
        except (*LOST, ValueError):
            partitions = []
        name = lambda p: f"{p['feature_type']} {p['partition']}"
        self.owned[self.at] = frozenset(name(p) for p in partitions if p["owner"])
        self.applied[self.at] = {name(p): p["applied"] for p in partitions}
        if self.owned[self.at] != self.told:
            self.told = self.owned[self.at]
            self.journal.note(op="status", at=self.at, time=time.monotonic(), owned=sorted(self.told))


class WatermarkWatch(threading.Thread):
    """Looks at PostGIS's watermarks past the proxy, several times a second."""

    QUERY = (
        "SELECT feature_type || ' ' || partition, durable_through, evict_through, as_of FROM alluvium.watermark "
        "ORDER BY 1;\n\\watch 0.3\n"
    )

    def __init__(self, journal, url):
        super().__init__(daemon=True)
        self.journal, self.url = journal, url
        self.stopped = threading.Event()
        self._psql = None

    def run(self):
        while not self.stopped.wait(0.3):
            self._psql = subprocess.Popen(
                ["psql", self.url, "-qAtX", "-F", ","], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, preexec_fn=die_with_parent,
            )
            try:
                self._psql.stdin.write(self.QUERY)
                self._psql.stdin.close()
            except OSError:
                continue
            for line in self._psql.stdout:
                name, *values = line.strip().split(",")
                if len(values) == 3:
                    self.journal.note(op="watermark", time=time.monotonic(), name=name, values=[int(v) for v in values])

    def end(self):
        self.stopped.set()
        if self._psql:
            self._psql.kill()


class Load:
    """All workers, as long as the block runs."""

    def __init__(self, journal, cluster, seed):
        self.journal, self.shared = journal, Shared()
        # By server: the partitions that it sweeps, and how far it has come in each.
        self.owned, self.applied = {}, {}
        chance = random.Random(seed)
        self.workers = []
        for instance in cluster.instances:
            for kind, count in ((Writer, 2), (Reader, 1), (FollowingReader, 1), (TransientReader, 1)):
                for _ in range(count):
                    self.workers.append(kind(journal, instance, random.Random(chance.random()), self.shared))
            self.workers.append(StatusWatch(journal, instance, self.owned, self.applied))
        self.watch = WatermarkWatch(journal, cluster.database.url)

    def __enter__(self):
        self.watch.start()
        for worker in self.workers:
            worker.start()
        return self

    def check(self):
        for worker in self.workers:
            worker.check()

    def farthest(self):
        """How far the foremost server has come in each partition."""
        foremost = {}
        for applied in self.applied.copy().values():
            for partition, offset in applied.items():
                foremost[partition] = max(offset, foremost.get(partition, 0))
        return foremost

    def lagging(self, servers, goal):
        """The servers and partitions that have not come so far."""
        at = lambda server, partition: self.applied.get(server, {}).get(partition, 0)
        return [(server, partition, at(server, partition)) for server in servers for partition in goal if at(server, partition) < goal[partition]]

    def __exit__(self, *_):
        for worker in self.workers:
            worker.stopped.set()
        for worker in self.workers:
            worker.join()
        self.watch.end()
