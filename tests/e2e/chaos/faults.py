"""What is done to the parts, and in which order: a schedule out of a seed.

A fault has a kind, the parts that it hits, and a length. A schedule goes in rounds: each kind on each part, the three servers
in turn, and each pair of parts twice, with kinds by chance; shuffled. So a short run has a bit of everything.
"""
import dataclasses
import itertools
import random
import time

from parts import BACKING, SESSION_S

# Longer than a session, so that leases move and old owners wake up.
LONG_S = SESSION_S * 1.6
KINDS = {
    "kill": "kill -9, and started again",
    "restart": "stopped in order, and started again",
    "pause": "SIGSTOP, for longer than a session",
    "cut": "its connections reset, new ones too",
    "stall": "its connections as a black hole, for longer than a session",
    "delay": "each message to and from it late",
}
# A part that stands for whichever server has its turn.
SERVER = "server"
PAIRS = [*itertools.combinations((SERVER, *BACKING), 2), (SERVER, SERVER)]


@dataclasses.dataclass
class Fault:
    """`hits`: (kind, part) of one or two parts at the same time. `seconds`: from the last beginning to the first end."""

    hits: list
    seconds: float

    def __str__(self):
        return f"{' and '.join(f'{kind} {part}' for kind, part in self.hits)} for {self.seconds:.1f} s"

    def parts(self):
        return [part for _, part in self.hits]


def schedule(seed, servers, kinds=None, singles=None, pairs=PAIRS):
    """Endless. `kinds`, `singles`, `pairs` keep to some of them."""
    chance = random.Random(seed)
    turn = itertools.cycle(servers)
    kinds, singles = kinds or list(KINDS), singles or [SERVER, *BACKING]
    while True:
        round_ = [[(kind, part)] for kind in kinds for part in singles]
        round_ += [[(chance.choice(kinds), part) for part in pair] for pair in pairs * 2]
        chance.shuffle(round_)
        for hits in round_:
            named = [(kind, next(turn) if part == SERVER else part) for kind, part in hits]
            seconds = max(length(kind, chance) for kind, _ in named)
            yield Fault(named, seconds)


def one_of_each(seed, servers):
    """Each kind once, on all parts between them, and one pair."""
    chance = random.Random(seed)
    kinds = chance.sample(list(KINDS), len(KINDS))
    parts = [servers[0], *BACKING, servers[1], chance.choice(BACKING)]
    hits = [[hit] for hit in zip(kinds, parts)]
    hits.append([("pause", servers[2]), (chance.choice(["kill", "cut", "stall"]), chance.choice(BACKING))])
    for of_fault in hits:
        yield Fault(of_fault, max(length(kind, chance) for kind, _ in of_fault))


def length(kind, chance):
    if kind in ("pause", "stall"):
        return LONG_S
    if kind == "restart":
        return 0.0
    # A server that stays away for longer than a session loses its leases, one that is back at once does not.
    return chance.choice([0.5, 2.0, LONG_S])


def inflict(cluster, fault, chance, look):
    """Does it, and mends it, and looks around meanwhile; returns when it began and when its last part was mended."""
    began = time.monotonic()
    for i, (kind, name) in enumerate(fault.hits):
        if i:
            time.sleep(chance.uniform(0, 0.5))
        begin(cluster, kind, name)
    until = time.monotonic() + fault.seconds
    while time.monotonic() < until:
        look()
        time.sleep(0.05)
    for kind, name in fault.hits:
        end(cluster, kind, name)
    return began, time.monotonic()


def begin(cluster, kind, name):
    part = cluster.parts[name]
    if kind in ("cut", "stall", "delay"):
        cluster.proxy.set(kind, part.links)
    elif kind == "restart":
        part.stop()
    else:
        getattr(part, kind)()


def end(cluster, kind, name):
    part = cluster.parts[name]
    if kind in ("cut", "stall", "delay"):
        cluster.proxy.set("open", part.links)
    elif kind == "pause":
        part.resume()
    else:
        part.start()
