# Sourced by the scripts of this directory: where a stack lives, which ports it has, and how a server is started,
# watched and ended. Owns no server. Invariant: a process is only ever signalled when it is the very one that was
# started here, which its pid and its start time tell.
#
# A stack is a directory. The environment says which one:
#   STACK_DIR        the directory, target/stack unless given
#   STACK_PORT_BASE  Kafka listens there, its controller on +1, ZooKeeper on +2, PostgreSQL on +3. Without it 19092,
#                    19093, 12181 and 15432, or when one of those is taken the next free block from 20000 up.
# The ports are chosen at the first start and kept in $STACK_DIR/ports until `stack-clean`.

set -euo pipefail

STACK_TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$STACK_TOOLS/../.." && pwd)
STACK_DIR=$(realpath -m "${STACK_DIR:-$REPO/target/stack}")

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

kafka_version() { sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$STACK_TOOLS/kafka-pom.xml"; }
KAFKA_LIBS=$REPO/target/kafka-$(kafka_version)

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Sets KAFKA_PORT, CONTROLLER_PORT, ZOOKEEPER_PORT and POSTGRES_PORT, choosing them when this stack has none yet.
load_ports() {
  mkdir -p "$STACK_DIR"
  [ -s "$STACK_DIR/ports" ] || choose_ports
  . "$STACK_DIR/ports"
}

choose_ports() {
  local base
  if [ -n "${STACK_PORT_BASE:-}" ]; then
    write_ports "$STACK_PORT_BASE" $((STACK_PORT_BASE + 1)) $((STACK_PORT_BASE + 2)) $((STACK_PORT_BASE + 3))
    return
  fi
  if free 19092 19093 12181 15432; then
    write_ports 19092 19093 12181 15432
    return
  fi
  for base in $(seq 20000 10 20990); do
    if free "$base" $((base + 1)) $((base + 2)) $((base + 3)); then
      write_ports "$base" $((base + 1)) $((base + 2)) $((base + 3))
      return
    fi
  done
  die "no free block of ports from 20000 to 20999; set STACK_PORT_BASE"
}

free() {
  local port
  for port in "$@"; do
    if port_taken "$port"; then return 1; fi
  done
}

write_ports() {
  printf 'KAFKA_PORT=%s\nCONTROLLER_PORT=%s\nZOOKEEPER_PORT=%s\nPOSTGRES_PORT=%s\n' "$@" >"$STACK_DIR/ports"
}

# The moment a process was started, in clock ticks since boot; empty when there is none (or only its zombie).
started_at() {
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  read -ra fields <<<"${stat##*) }" # after the name, which may hold blanks
  [ "${fields[0]}" = Z ] || echo "${fields[19]}"
}

# running PIDFILE: prints the pid when that server runs.
running() {
  local pid since
  [ -s "$1" ] && read -r pid since <"$1" && [ "$(started_at "$pid")" = "$since" ] && echo "$pid"
}

# launch PIDFILE LOG COMMAND...: starts a server that outlives this shell and holds none of its descriptors.
launch() {
  local pidfile=$1 log=$2 pid
  shift 2
  [ ! -e "$log" ] || mv "$log" "$log.1"
  setsid "$@" </dev/null >"$log" 2>&1 &
  pid=$!
  echo "$pid $(started_at "$pid")" >"$pidfile"
}

# await SECONDS PIDFILE LOG CONDITION...: waits until the condition holds; fails at once when the server has ended.
await() {
  local deadline=$((SECONDS + $1)) pidfile=$2 log=$3
  shift 3
  until "$@"; do
    running "$pidfile" >/dev/null || { tail -n 20 "$log" >&2; die "ended while starting, see $log"; }
    [ "$SECONDS" -lt "$deadline" ] || { tail -n 20 "$log" >&2; die "does not serve yet, see $log"; }
    sleep 0.1
  done
}

# end PIDFILE [SIGNAL]: signals the server and waits until it is gone; kills it after 30 s.
end() {
  local pidfile=$1 signal=${2:-TERM} pid deadline=$((SECONDS + 30))
  pid=$(running "$pidfile") || { rm -f "$pidfile"; return 0; }
  kill "-$signal" "$pid"
  while running "$pidfile" >/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || kill -KILL "$pid" 2>/dev/null || true
    sleep 0.05
  done
  rm -f "$pidfile"
}

# dispatch VERB: the verbs each server's script has, in terms of its functions start, stop, kill_hard and status.
dispatch() {
  case "${1:-}" in
    start) start ;;
    stop) stop ;;
    restart) stop && start ;;
    kill) kill_hard ;;
    status) status ;;
    *) die "usage: $(basename "$0") start|stop|restart|kill|status" ;;
  esac
}
