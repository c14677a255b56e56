"""The running parts of the load bench: the stack, instances of the server, and the programs that put load on them."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import time
import urllib.parse
import urllib.request

REPO = pathlib.Path(__file__).resolve().parent.parent
OUT = REPO / "target/bench"
PG_BIN = pathlib.Path("/usr/lib/postgresql/15/bin")


def run(*command, **options):
    return subprocess.run(command, check=True, text=True, cwd=REPO, **options)


def output_of(*command, **options):
    return run(*command, stdout=subprocess.PIPE, **options).stdout


@contextlib.contextmanager
def stack():
    """A stack of its own, empty; its addresses are in the environment while it runs."""
    os.environ["STACK_DIR"] = str(OUT / "stack")
    if (OUT / "stack").exists():
        run("tests/stack/down", "--clean")
    try:
        run("tests/stack/up", stdout=subprocess.DEVNULL)
        for line in (OUT / "stack/env").read_text().splitlines():
            name, _, value = line.partition("=")
            os.environ[name] = value
        yield
    finally:
        run("tests/stack/down", "--clean")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """An instance of the clustered server."""

    def __init__(self, binary, name):
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self.log = open(OUT / f"{name}.log", "w")
        self.process = subprocess.Popen(
            [binary, "serve", "--config", "config/clustered.toml", "--listen", self.address],
            cwd=REPO, stdout=self.log, stderr=subprocess.STDOUT,
            # Exports are one answer each.
            env={**os.environ, "ALLUVIUM__SERVER__MAX_LIMIT": str(1 << 40)},
        )
        self.connection, self.used = None, 0.0

    def wait_ready(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended while starting, see {self.log.name}")
            with contextlib.suppress(OSError):
                if self.request("GET", "/health/ready")[0] == 200:
                    return
            time.sleep(0.1)
        raise SystemExit(f"the server is not ready, see {self.log.name}")

    def request(self, method, path, body=None, content_type="application/json"):
        """Status and body, over a connection that is kept; a server closes one that has been idle for long."""
        idle, self.used = time.monotonic() - self.used, time.monotonic()
        if self.connection is None or idle > 5:
            self.connection = http.client.HTTPConnection(self.address, timeout=60)
            self.connection.connect()
            self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.connection.request(method, path, body, {"Content-Type": content_type} if body else {})
            response = self.connection.getresponse()
            return response.status, response.read()
        except OSError:
            self.connection = None
            raise

    def create(self, name, expiry):
        declaration = {
            "id": name,
            "geometry": {"type": "Point"},
            "expiry": expiry,
            "properties": [
                {"name": "name", "type": "string"},
                {"name": "callsign", "type": "string"},
                {"name": "seq", "type": "int64"},
                {"name": "status", "type": "int32"},
                {"name": "speed", "type": "number"},
                {"name": "course", "type": "number"},
                {"name": "heading", "type": "int32"},
                {"name": "seen", "type": "date-time"},
            ],
        }
        if expiry == "never":
            declaration["max_dirty"] = 86_400
        status, body = self.request("POST", "/collections", json.dumps(declaration))
        if status >= 300:
            raise SystemExit(f"POST /collections: {status} {body.decode()}")

    def upload(self, collection, file):
        """Loads a file of lines; seconds."""
        begin = time.monotonic()
        answer = json.loads(output_of(
            "curl", "-sS", "--fail-with-body", "-X", "POST", "-T", str(file), "-H", "Content-Type: application/x-ndjson",
            "-H", "Expect:", f"{self.url}/collections/{collection}/items",
        ))
        if answer["rejected"]:
            raise SystemExit(f"the upload was refused in part: {answer}")
        return time.monotonic() - begin

    def count(self, collection, tier):
        status, body = self.request("GET", f"/collections/{collection}/items?limit=1&tier={tier}")
        if status != 200:
            raise SystemExit(f"{collection}: {status} {body.decode()}")
        return json.loads(body).get("numberMatched")

    def position(self, collection):
        """How far this instance knows, for reads elsewhere that must not know less."""
        with urllib.request.urlopen(f"{self.url}/collections/{collection}/items?limit=1") as answer:
            return answer.headers["Alluvium-Position"]

    def wait_persisted(self, collection, features, seconds):
        """Until PostGIS has them all and the index none; seconds that it took."""
        begin = time.monotonic()
        while True:
            if self.count(collection, "transient") == 0 and psql(f"SELECT count(*) FROM {collection}") == str(features):
                return time.monotonic() - begin
            if time.monotonic() - begin > seconds:
                raise SystemExit(f"'{collection}' was not persisted within {seconds} s")
            time.sleep(0.5)

    def swept(self, collection):
        """Features of it that this instance has persisted."""
        status, body = self.request("GET", "/admin/status")
        if status != 200:
            raise SystemExit(f"/admin/status: {status} {body.decode()}")
        return sum(p["swept_features"] for p in json.loads(body)["partitions"] if p["feature_type"] == collection)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.log.close()


def persist_rate(servers, collection, features):
    """Features a second, from the first batch that is persisted to the last one."""
    deadline = time.monotonic() + 300
    first = None
    while True:
        now, swept = time.monotonic(), sum(s.swept(collection) for s in servers)
        if swept and first is None:
            first = now, swept
        if swept >= features:
            return (swept - first[1]) / max(now - first[0], 1e-3)
        if now > deadline:
            raise SystemExit(f"'{collection}' was not persisted within 300 s")
        time.sleep(0.05)


def export_path(collection, output_format):
    query = {"service": "WFS", "version": "2.0.0", "request": "GetFeature", "typeNames": collection}
    if output_format:
        query["outputFormat"] = output_format
    return "/wfs?" + urllib.parse.urlencode(query)


def download(url, file=os.devnull, *options):
    """Seconds that a whole answer takes."""
    return float(output_of("curl", "-sS", "--fail", *options, "-o", str(file), "-w", "%{time_total}", url))


def wrk(server, script, *arguments, threads, connections, seconds):
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s",
               "-s", f"bench/{script}", server.url, "--", *map(str, arguments)]
    printed = output_of(*command)
    result = json.loads(re.search(r"^RESULT (.*)$", printed, re.M)[1])
    if result["failed"]:
        raise SystemExit(f"{script}: {result['failed']} of {result['requests']} requests failed: {result['example']}")
    result["rate"] = result["requests"] / result["seconds"]
    return result


def psql(statement, **options):
    command = [PG_BIN / "psql", os.environ["ALLUVIUM_POSTGRES"], "-qXtA", "-v", "ON_ERROR_STOP=1", "-c", statement]
    return output_of(*command, **options).strip()


def pgbench(script, seconds, **variables):
    """Transactions a second of 8 clients with prepared statements."""
    url = os.environ["ALLUVIUM_POSTGRES"]
    defines = [f"-D{name}={value}" for name, value in variables.items()]
    printed = output_of(PG_BIN / "pgbench", "-n", "-Mprepared", "-c8", "-j2", f"-T{seconds}", *defines, "-f", script, url)
    return float(re.search(r"^tps = ([\d.]+)", printed, re.M)[1])


def copy_seconds(table, rows):
    """Seconds that binary COPY of so many rows of a table takes, the median of five."""
    statement = f"COPY (SELECT * FROM {table} LIMIT {rows}) TO STDOUT (FORMAT binary)"
    command = [PG_BIN / "psql", os.environ["ALLUVIUM_POSTGRES"], "-qX", "-c", statement]

    def once():
        begin = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - begin

    idle = min(seconds_of_psql() for _ in range(3))
    return statistics.median(once() for _ in range(5)) - idle


def seconds_of_psql():
    begin = time.monotonic()
    psql("SELECT 1")
    return time.monotonic() - begin


def kafka_producer(records, size):
    """Records a second of Kafka's own producer test, each acknowledged as ours are."""
    broker = os.environ["ALLUVIUM_KAFKA"]
    tool = ["tests/stack/kafka", "tool"]
    run(*tool, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", broker, "--create", "--topic", "limit",
        "--partitions", "1", stdout=subprocess.DEVNULL)
    printed = output_of(
        *tool, "org.apache.kafka.tools.ProducerPerformance", "--topic", "limit", "--num-records", str(records),
        "--record-size", str(size), "--throughput", "-1", "--producer-props", f"bootstrap.servers={broker}", "acks=all",
    )
    return float(re.findall(r"([\d.]+) records/sec", printed)[-1])
