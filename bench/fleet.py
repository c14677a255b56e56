"""The ships of the load bench: what they report, which reports a run has sent, and so what must be there afterwards.

The formulas are those of fleet.lua, single.lua and batch.lua.
"""

import re

LINES = 1000
BATCH_FIRST = 10_000_000
# Of requests that were under way together nobody knows the order.
UNDER_WAY = 2000


def position(n, k):
    harbour = n % 499
    x = harbour * 73 % 340 - 170 + n * 31 % 2000 / 1000 + k * 17 % 1000 / 1e5
    y = harbour * 37 % 120 - 60 + n * 57 % 2000 / 1000 + k * 29 % 1000 / 1e5
    return x, y


def report(n, k):
    x, y = position(n, k)
    return (
        f'{{"type":"Feature","id":"s{n:07}","geometry":{{"type":"Point","coordinates":[{x:.5f},{y:.5f}]}},"properties":'
        f'{{"name":"SHIP NUMBER {n}","callsign":"C{n}","seq":{k},"status":{n % 16},"speed":{k % 300 / 10:.1f},'
        f'"course":{k * 7 % 3600 / 10:.1f},"heading":{k % 360},"seen":"2022-01-03T00:{k // 60 % 60:02}:{k % 60:02}Z"}}}}'
    )


def write_ndjson(path, features):
    """Report 0 of every ship."""
    with open(path, "w") as out:
        for first in range(0, features, 10_000):
            numbers = range(first, min(first + 10_000, features))
            out.write("".join(report(n, 0) + "\n" for n in numbers))


def numbers_of(thread, threads, features):
    """The ids that a thread of wrk writes to, in its order, without end."""
    share, x = features // threads, thread + 1
    while True:
        x = x * 16807 % 2147483647
        yield x % share * threads + thread


class Expected:
    """The reports that each ship may show."""

    def __init__(self, features):
        self.features = features
        self.allowed = {}

    def after_single(self, answered):
        threads = len(answered)
        for thread, count in enumerate(answered):
            history = {}
            # wrk tries the first request of thread 0 without sending it; the last ones may not have been answered.
            unsure_from = count - UNDER_WAY
            for k, n in zip(range(1, count + UNDER_WAY), numbers_of(thread, threads, self.features)):
                history.setdefault(n, []).append(k)
            for n, sent in history.items():
                sure = [k for k in sent if 1 < k < unsure_from]
                oldest = sure[-1] - UNDER_WAY if sure else 0
                self.allowed[n] = {k for k in sent if k >= oldest} | (set() if sure else {0})

    def after_batch(self, answered, bodies):
        threads = len(answered)
        for thread, count in enumerate(answered):
            numbers = numbers_of(thread, threads, self.features)
            contents = [[next(numbers) for _ in range(LINES)] for _ in range(bodies)]
            skipped = 1 if thread == 0 else 0
            rounds = range(skipped, skipped + count)
            # Of each body only the last round matters.
            for r in rounds[-bodies:]:
                for n in contents[r % bodies]:
                    self.allowed[n] = {BATCH_FIRST + r % bodies + 1}
            under_way = (skipped + count) % bodies
            for n in contents[under_way]:
                self.allowed[n] = self.allowed.get(n, {0}) | {BATCH_FIRST + under_way + 1}

    def check(self, file):
        """Holds a GeoJSON export against what must be there; gives the number of features compared."""
        seen = bytearray(self.features)
        wrong = []
        for n, geometry, k in read(file):
            ok = n < self.features and not seen[n] and k in self.allowed.get(n, {0})
            if ok:
                seen[n] = 1
                x, y = position(n, k)
                ok = abs(x - geometry[0]) < 1e-5 and abs(y - geometry[1]) < 1e-5
            if not ok:
                wrong.append((n, k))
        missing = seen.count(0)
        if wrong or missing:
            raise SystemExit(f"READ BACK WRONG: {len(wrong)} features, such as {wrong[:5]}; {missing} missing")
        return self.features


FEATURE = re.compile(
    rb'"id":"(?:\w+\.)?s(\d+)".*?"coordinates":\[([-\d.eE]+),([-\d.eE]+)\].*?"seq":(\d+),', re.DOTALL
)


def read(file):
    """Number, position and report of each feature of a GeoJSON file."""
    rest = b""
    with open(file, "rb") as f:
        while piece := f.read(1 << 22):
            text = rest + piece
            end = 0
            for m in FEATURE.finditer(text):
                yield int(m[1]), (float(m[2]), float(m[3])), int(m[4])
                end = m.end()
            rest = text[end:]
