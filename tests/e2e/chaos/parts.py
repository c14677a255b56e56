"""The parts of a cluster, and what can be done to them: Kafka, ZooKeeper and PostGIS of a stack of its own, three servers, and
the proxy's links between each server and each of the others.

Owns the processes: all have ended when the `Cluster` is left. A server reaches Kafka through its own link even for the broker's
own address, since the broker has a listener for each server that advertises the link's port.
"""
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from lib import ROOT, Database, Server, die_with_parent, psql

HERE = pathlib.Path(__file__).resolve().parent
STACK = ROOT / "tests/stack"
BACKING = ("kafka", "zookeeper", "postgres")
PORT = re.compile(r"127\.0\.0\.1:(\d+)")
# What a server's leases outlive it by. Short, so that a fault can last for longer.
SESSION_S = 4
SETTINGS = {
    "store__sweep_interval": 0.1,
    "store__track_rest": 1,
    "zookeeper__session_timeout": SESSION_S,
    "server__count_budget": 30,
    "telemetry__log": "info",
}


def free_ports(count):
    """So many in a row, below those that the system gives to connections: what is killed must find its port free again."""
    first = int(os.environ.get("STACK_PORT_BASE", 25_990)) + 10  # the base is another stack's
    for base in range(first, 32_768 if first < 32_768 else first + 1, 40):
        with contextlib.ExitStack() as sockets:
            try:
                for port in range(base, base + count):
                    sockets.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        return list(range(base, base + count))
    raise AssertionError(f"no {count} free ports from {first} on")


class Backing:
    """A server of the stack."""

    def __init__(self, name, environment, links):
        self.name, self.links = name, links
        self._environment = environment
        self._paused = []

    def command(self, verb):
        done = subprocess.run(
            [STACK / self.name, verb], env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{self.name} {verb}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self):
        self.command("start")

    def kill(self):
        self.command("kill")

    def stop(self):
        self.command("stop")

    def pause(self):
        pid = int(self.command("status").split("pid ")[1].split(",")[0])
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        # The parent first, so that it takes none of its children for dead or wanting.
        self._paused = [pid, *map(int, children)]
        signal_all(self._paused, signal.SIGSTOP)

    def resume(self):
        signal_all(self._paused, signal.SIGCONT)
        self._paused = []


class Instance(Server):
    """A server of ours, which can stand still. `started`: when, by the monotonic clock."""

    links = ()
    started = 0.0

    def pause(self):
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def environment(self, variables):
        """Goes before its settings."""
        self._environment |= variables

    def start(self, ready=False):
        self.started = time.monotonic()
        super().start(ready)


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # a backend that has just ended


class Proxy:
    """The process of proxy.py."""

    def __init__(self, links):
        """`links`: name -> (listen, target)."""
        arguments = [f"{name}={listen}:{target}" for name, (listen, target) in links.items()]
        self._process = subprocess.Popen(
            [sys.executable, HERE / "proxy.py", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=die_with_parent,
        )
        self._lock = threading.Lock()
        assert self._process.stdout.readline() == "ready\n", "the proxy did not start"

    def set(self, mode, links):
        with self._lock:
            self._process.stdin.write(f"{mode} {' '.join(links)}\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline() == "done\n", "the proxy has ended"

    def end(self):
        self._process.stdin.close()
        self._process.wait()


class Cluster:
    """All of it, running. `parts`: by name, what faults are done to."""

    def __init__(self, directory, servers=3, environment=None):
        self._directory, self._count, self._environment = directory, servers, environment or {}
        self.instances, self.parts = [], {}
        self.proxy = self.database = None

    def __enter__(self):
        names = [f"server-{n}" for n in range(self._count)]
        ports = free_ports(4 + 6 * self._count)
        base = ports[0]
        take = iter(ports[4:]).__next__
        # The broker's own listener for each server, and the port of the link that leads there.
        kafka = {name: (take(), take()) for name in names}
        stack_dir = ROOT / f"target/{self._directory.name}-stack"
        self._stack = {
            **os.environ,
            "STACK_DIR": str(stack_dir),
            "STACK_PORT_BASE": str(base),
            "STACK_KAFKA_LISTENERS": " ".join(f"{listener}:{link}" for listener, link in kafka.values()),
        }
        try:
            self._run("down", "--clean")
            self._run("up")
            self.address = dict(line.split("=", 1) for line in (stack_dir / "env").read_text().splitlines())
            port = {part: int(PORT.search(self.address[f"ALLUVIUM_{part.upper()}"])[1]) for part in BACKING}
            self.database = Database(self.address["ALLUVIUM_POSTGRES"])
            self.prefix = f"{self.database.name}."
            links = {}
            for name in names:
                links[f"{name}/kafka"] = (kafka[name][1], kafka[name][0])
                for part in ("zookeeper", "postgres"):
                    links[f"{name}/{part}"] = (take(), port[part])
            self.proxy = Proxy(links)
            for part in BACKING:
                self.parts[part] = Backing(part, self._stack, [f"{name}/{part}" for name in names])
            for name in names:
                self._start(name, take(), {part: links[f"{name}/{part}"][0] for part in BACKING})
            for instance in self.instances:
                instance.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, name, listen, ports):
        environment = {
            "ALLUVIUM_KAFKA": f"127.0.0.1:{ports['kafka']}",
            "ALLUVIUM_ZOOKEEPER": f"127.0.0.1:{ports['zookeeper']}",
            "ALLUVIUM_POSTGRES": f"postgres://alluvium@127.0.0.1:{ports['postgres']}/{self.database.name}",
        }
        settings = {**SETTINGS, "zookeeper__root": f"/{self.database.name}", "kafka__topic_prefix": self.prefix}
        instance = Instance(self._directory, name, settings, environment, "config/clustered.toml", listen)
        instance.environment(self._environment)
        instance.links = [f"{name}/{part}" for part in BACKING]
        self.instances.append(instance)
        self.parts[name] = instance
        instance.start()

    def __exit__(self, *_):
        for instance in self.instances:
            instance.kill()
        for part in BACKING:
            if part in self.parts:
                self.parts[part].resume()
        if self.proxy:
            self.proxy.end()
        self._run("down", "--clean")

    def _run(self, script, *arguments):
        done = subprocess.run(
            [STACK / script, *arguments], env=self._stack, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, f"tests/stack/{script}: {done.stdout}{done.stderr}"

    def sql(self, statement):
        """Asks PostGIS past the proxy."""
        return psql(self.database.url, statement)
