"""What the tests of the built server share: servers on free ports with a directory of their own, an HTTP client that keeps
its connection, the two stacks, and how a test passes, skips and fails. Python's standard library only.

A program calls `main(*cases)`. A case is a function of a `Bench`, named by its docstring's first line; it returns, or raises
`Skip` with a reason, or anything else to fail. Everything that a case started has ended when it returns. Its directory,
target/e2e/PROGRAM-CASE, stays when it failed, with the servers' logs.
"""
import ctypes
import gzip
import http.client
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("ALLUVIUM_BIN") or ROOT / "target/debug/alluvium")
WORK = ROOT / "target/e2e"
POSITION = "Alluvium-Position"
NDJSON = "application/x-ndjson"
START_S = 60
# A busy machine is waited for: what is 202 for a client in a hurry would be a failure here.
PATIENT = {"store__wait_for_apply": 30}


class Skip(Exception):
    """The case cannot run here; the reason is for people."""


def main(*cases):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    program = pathlib.Path(sys.argv[0]).name
    wanted = sys.argv[1:]
    passed, failures, skips = 0, [], []
    for case in cases:
        if wanted and case.__name__ not in wanted:
            continue
        name = f"{program} {case.__name__}"
        began = time.monotonic()
        try:
            with Bench(f"{program}-{case.__name__}") as bench:
                case(bench)
        except Skip as reason:
            skips.append(str(reason))
            print(f"skipped: {name}: {reason}", flush=True)
        except Exception:  # a failed case; the next one still runs
            failures.append(name)
            traceback.print_exc(file=sys.stdout)
            print(f"FAILED: {name}, see {bench.directory.relative_to(ROOT)}", flush=True)
        else:
            passed += 1
            print(f"passed: {name}, {time.monotonic() - began:.1f} s", flush=True)
    if skips and not passed and not failures:
        print("; ".join(dict.fromkeys(skips)))
        sys.exit(77)
    print(f"{passed} passed, {len(failures)} failed, {len(skips)} skipped")
    sys.exit(1 if failures else 0)


class Bench:
    """What one case works with: its directory, its servers, its database."""

    def __init__(self, name):
        self.directory = WORK / name
        self.servers = []
        self._database = None

    def __enter__(self):
        if not BINARY.exists():
            raise Skip(f"{BINARY} is missing: cargo build")
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        return self

    def __exit__(self, kind, *_):
        for server in self.servers:
            server.kill()
        if self._database:
            self._database.drop()
        if kind is None or issubclass(kind, Skip):
            shutil.rmtree(self.directory, ignore_errors=True)

    def embedded(self, **settings):
        """A running embedded server. `settings`: section__key=value."""
        return self._start(Server(self.directory, "embedded", {**PATIENT, **settings}))

    def clustered(self, count, environments=None, **settings):
        """Running instances of one cluster, on the real servers and in a database of its own. `environments`: more variables
        for each of them."""
        addresses = {name: os.environ.get(name) for name in ("ALLUVIUM_KAFKA", "ALLUVIUM_ZOOKEEPER", "ALLUVIUM_POSTGRES")}
        missing = [name for name, value in addresses.items() if not value]
        if missing:
            raise Skip(f"no servers: {' and '.join(missing)} not set (make stack-up, then set -a; . target/stack/env)")
        if not shutil.which("psql"):
            raise Skip("psql is missing: apt install postgresql-client")
        self._database = self._database or Database(addresses["ALLUVIUM_POSTGRES"])
        addresses["ALLUVIUM_POSTGRES"] = self._database.url
        settings = {**PATIENT, "zookeeper__root": f"/{self._database.name}", **settings}
        return [
            self._start(
                Server(self.directory, f"clustered-{i}", settings, {**addresses, **more}, "config/clustered.toml")
            )
            for i, more in enumerate(environments or [{}] * count)
        ]

    @property
    def database(self):
        return self._database

    def _start(self, server):
        self.servers.append(server)
        server.start()
        return server


class Server:
    """One process of `alluvium serve`. Its port stays when it is started again."""

    def __init__(self, directory, name, settings, environment=None, config=None, port=None):
        self.name = name
        self.data = directory / name
        self.log = directory / f"{name}.log"
        self.port = port or free_port()
        self._command = [BINARY, "serve", "--listen", f"127.0.0.1:{self.port}", "--data-dir", self.data]
        if config:
            self._command += ["--config", ROOT / config]
        variables = {f"ALLUVIUM__{key.upper()}": str(value) for key, value in settings.items()}
        self._environment = {**os.environ, **(environment or {}), **variables}
        self._process = None

    def start(self, ready=True):
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent,
            )
        if ready:
            self.wait_ready()

    def wait_ready(self):
        """Waits until the server says that it has caught up."""
        client, answer = self.client(), None
        deadline = time.monotonic() + START_S
        while True:
            if self._process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self._process.returncode} as it started:\n{self.tail()}")
            try:
                answer = client.get("/health/ready")
                if answer.status == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} is not ready after {START_S} s ({answer}):\n{self.tail()}")
            time.sleep(0.02)

    def kill(self):
        """kill -9."""
        if self._process and self._process.poll() is None:
            self._process.kill()
        if self._process:
            self._process.wait()

    def stop(self):
        """As a service manager does; fails when the server does not end well."""
        self._process.terminate()
        code = self._process.wait(30)
        assert code == 0, f"{self.name} stopped with {code}:\n{self.tail()}"

    def alive(self):
        return self._process.poll() is None

    def client(self, **options):
        return Client(self.port, **options)

    def rss(self):
        """Resident memory now, bytes. Without the pages of files that are mapped, of which the system takes back what it needs."""
        with open(f"/proc/{self._process.pid}/status") as status:
            line = next(line for line in status if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    def tail(self, lines=20):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class RssWatch:
    """The greatest resident memory of a server while the block runs."""

    def __init__(self, server):
        self.server, self.before, self.peak = server, server.rss(), server.rss()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        while not self._done.wait(0.05) and self.server.alive():
            self.peak = max(self.peak, self.server.rss())

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    @property
    def growth(self):
        return self.peak - self.before

    def __str__(self):
        return f"{self.before >> 20} MiB before, at most {self.peak >> 20} MiB"


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    @property
    def position(self):
        return self.headers.get(POSITION)

    def expect(self, *statuses):
        assert self.status in statuses, f"{statuses} expected: {self}"
        return self

    def __str__(self):
        return f"{self.status} {self.body[:600].decode(errors='replace')}"


class Client:
    """One connection, opened again when it was lost. Not for several threads. Raises OSError or HTTPException (`LOST`) when
    there was no whole answer."""

    def __init__(self, port, timeout=60):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, position=None):
        """`body`: bytes, text, an iterable of bytes (sent in chunks), or anything else as JSON."""
        headers = dict(headers or {})
        if position:
            headers[POSITION] = position
        if isinstance(body, str):
            body = body.encode()
        elif isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/geo+json" if "/items" in path else "application/json")
        connection = self._connection
        try:
            if connection.sock and select.select([connection.sock], [], [], 0)[0]:
                connection.close()  # the server has hung up since
            if connection.sock is None:
                connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.request(method, path, body, headers, encode_chunked=not isinstance(body, (bytes, type(None))))
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
            if response.headers.get("Content-Encoding") == "gzip":
                answer.body = gzip.decompress(answer.body)
            return answer
        except BaseException:
            connection.close()
            raise

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def close(self):
        self._connection.close()

    def create(self, declaration):
        return self.request("POST", "/collections", declaration).expect(201)

    def purge(self, name):
        return self.request("DELETE", f"/collections/{name}?purge=true").expect(200, 204)

    def send(self, name, features, **options):
        """NDJSON, all of which must be taken."""
        answer = self.request("POST", f"/collections/{name}/items", ndjson(features), {"Content-Type": NDJSON}, **options)
        report = answer.expect(200).json()
        assert report["accepted"] == len(features) and report["rejected"] == 0, report
        return answer

    def item(self, name, feature_id, **options):
        return self.get(f"/collections/{name}/items/{urllib.parse.quote(feature_id, safe='')}", **options)

    def items(self, name, position=None, **parameters):
        """Every page: the features, and what the first page said of their number."""
        parameters.setdefault("limit", 10_000)
        path = f"/collections/{name}/items?{urllib.parse.urlencode(parameters)}"
        features, matched = [], None
        while path:
            page = self.get(path, position=position).expect(200).json()
            matched = page.get("numberMatched") if matched is None else matched
            assert page.get("numberReturned", len(page["features"])) == len(page["features"]), path
            features += page["features"]
            path = next((local(link["href"]) for link in page["links"] if link["rel"] == "next"), None)
        return features, matched

    def matched(self, name, position=None, **parameters):
        """numberMatched alone."""
        parameters["limit"] = 1
        page = self.get(f"/collections/{name}/items?{urllib.parse.urlencode(parameters)}", position=position)
        return page.expect(200).json()["numberMatched"]

    def in_memory(self, name):
        """How many features and tombstones of a type this server's index holds: none when PostGIS has all, deletions too."""
        partitions = self.get("/admin/status").expect(200).json()["partitions"]
        return sum(p["index_features"] for p in partitions if p["feature_type"] == name)


LOST = (OSError, http.client.HTTPException)


class Database:
    """A database for one case on a running PostgreSQL, with PostGIS in it."""

    def __init__(self, server):
        self.name = f"e2e_{uuid.uuid4().hex[:12]}"
        self._server = server
        url = urllib.parse.urlsplit(server)
        self.url = url._replace(path=f"/{self.name}").geturl()
        psql(server, f'CREATE DATABASE {self.name} TEMPLATE template0')
        psql(self.url, "CREATE EXTENSION postgis")

    def query(self, sql):
        """The rows of a query: text, None for null."""
        import csv
        import io

        null = "\\N"
        text = psql(self.url, f"COPY ({sql}) TO STDOUT WITH (FORMAT csv, NULL '{null}')")
        return [[None if v == null else v for v in row] for row in csv.reader(io.StringIO(text, newline=""))]

    def drop(self):
        psql(self._server, f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")


def psql(url, sql):
    done = subprocess.run(["psql", url, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql], capture_output=True, text=True)
    assert done.returncode == 0, f"psql: {done.stderr}"
    return done.stdout


def ndjson(features):
    return "".join(json.dumps(f, separators=(",", ":")) + "\n" for f in features).encode()


def feature(feature_id, geometry=None, /, **properties):
    return {"type": "Feature", "id": feature_id, "geometry": geometry, "properties": properties}


def point(x, y):
    return {"type": "Point", "coordinates": [x, y]}


def later(*positions):
    """One position token that is after all of these."""
    return ";".join(p for p in positions if p)


def local(href):
    """The path and query of a link."""
    url = urllib.parse.urlsplit(href)
    return urllib.parse.urlunsplit(("", "", url.path, url.query, ""))


def wait_until(what, probe, seconds=30, every=0.1):
    """The first true value of `probe()`."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(every)


def free_port():
    """One below those that the system gives to connections: what is killed must find its port free again."""
    for port in random.sample(range(21_000, 25_000), 1_000):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no free port from 21000 to 24999")


LIBC = ctypes.CDLL(None)


def die_with_parent():
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
