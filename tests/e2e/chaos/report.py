"""What a run was like: the faults, how long anything was unavailable for each, and how soon it was back.

Owns the aims, which are wishes about time; that one is missed is told apart from a broken promise.
"""
import bisect
import collections
import dataclasses

from faults import Fault
from parts import BACKING, SESSION_S

# A request that takes so long is not yet an interruption on a machine with other work.
UNNOTICED_S = 2.0
WRITES_BACK_S = 5.0
# What a server leaves open in the log as it dies holds up what others can show of their writes.
OPEN_TRANSACTION_S = 10.0 + UNNOTICED_S
LEASES_MOVE_S = SESSION_S + 2.0


@dataclasses.dataclass
class Effect:
    """Of one fault. Times in seconds; by (server, lane) the longest time without an answer that went well."""

    fault: object
    began: float
    ended: float
    gaps: dict
    back: dict
    leases: float

    def bystanders(self):
        """The servers that were not hit."""
        return {at for at, _ in self.gaps} - set(self.fault.parts())

    def longest(self, lane, servers=None):
        return max((gap for (at, of), gap in self.gaps.items() if of == lane and (servers is None or at in servers)), default=0.0)


def effect(journal, event):
    """Of a fault that the journal has noted, with its time from its beginning until all was well."""
    began, ended, until = event["began"], event["ended"], event["until"]
    gaps, back = {}, {}
    for key, answers in journal.successes.items():
        first, last = bisect.bisect_left(answers, began), bisect.bisect_right(answers, until)
        times = [began, *answers[first:last], until]
        gaps[key] = max(b - a for a, b in zip(times, times[1:]))
        i = bisect.bisect_left(answers, ended)
        back[key] = min(answers[i : i + 1], default=until) - ended
    fault = Fault([tuple(hit) for hit in event["hits"]], event["seconds"])
    return Effect(fault, began, ended, gaps, back, event["leases"])


def missed(effects):
    """The aims that were missed, in words."""
    for e in effects:
        parts = set(e.fault.parts())
        servers = {part for part in parts if part not in BACKING}
        if parts == servers:
            for lane, most in (("read", UNNOTICED_S), ("write", OPEN_TRANSACTION_S)):
                if (gap := e.longest(lane, e.bystanders())) > most:
                    yield f"{e.fault}: {lane}s at the other servers were interrupted for {gap:.1f} s"
            if e.fault.seconds >= LEASES_MOVE_S and e.leases > LEASES_MOVE_S and any(k != "delay" for k, _ in e.fault.hits):
                yield f"{e.fault}: the leases took {e.leases:.1f} s to move, longer than {LEASES_MOVE_S:.0f} s"
        if parts == {"kafka"}:
            if (gap := e.longest("read")) > UNNOTICED_S:
                yield f"{e.fault}: reads were interrupted for {gap:.1f} s"
            worst = max(after for (_, lane), after in e.back.items() if lane == "write")
            if worst > WRITES_BACK_S:
                yield f"{e.fault}: writes were back {worst:.1f} s after it, not within {WRITES_BACK_S:.0f} s"
        if parts == {"zookeeper"}:
            for lane in ("read", "write"):
                if (gap := e.longest(lane)) > UNNOTICED_S:
                    yield f"{e.fault}: {lane}s were interrupted for {gap:.1f} s"
        if parts == {"postgres"} and (gap := e.longest("transient")) > UNNOTICED_S:
            yield f"{e.fault}: reads of the transient tier were interrupted for {gap:.1f} s"


def kinds_of(part):
    return part if part in BACKING else "server"


def print_report(journal, effects):
    print("\nfaults by kind and part, and the longest time in seconds without an answer that went well")
    print("(others: at the servers that the fault did not hit; back: until writes are acknowledged everywhere after its end)")
    print(f"{'fault':44} {'times':>5} {'reads':>7} {'others':>7} {'memory':>7} {'writes':>7} {'others':>7} {'back':>7} {'leases':>7}")
    groups = collections.defaultdict(list)
    for e in effects:
        groups[" + ".join(f"{kind} {kinds_of(part)}" for kind, part in e.fault.hits) if len(e.fault.hits) == 1 else
               "pair: " + " + ".join(sorted(kinds_of(part) for part in e.fault.parts()))].append(e)
    for name, of in sorted(groups.items()):
        worst = lambda measure: max(map(measure, of))
        figures = [
            worst(lambda e: e.longest("read")), worst(lambda e: e.longest("read", e.bystanders())),
            worst(lambda e: e.longest("transient")),
            worst(lambda e: e.longest("write")), worst(lambda e: e.longest("write", e.bystanders())),
            worst(lambda e: max((after for (_, lane), after in e.back.items() if lane == "write"), default=0.0)),
            worst(lambda e: e.leases),
        ]
        print(f"{name:44} {len(of):5} " + " ".join(f"{figure:7.1f}" for figure in figures))
    kinds = collections.Counter(kind for e in effects for kind, _ in e.fault.hits)
    print(f"faults by kind: {', '.join(f'{kind} {n}' for kind, n in sorted(kinds.items()))}")
    outcomes = collections.Counter(write["outcome"] for write in journal.writes)
    changes = sum(write["found"] for write in journal.writes if write["outcome"] == "acked")
    answered = sum(read["status"] == 200 for read in journal.reads)
    print(f"writes: {outcomes['acked']} acknowledged ({changes} changes), {outcomes['refused']} refused, {outcomes['unknown']} unknown")
    print(f"reads: {answered} answered of {len(journal.reads)}, each compared with the log at its position")
