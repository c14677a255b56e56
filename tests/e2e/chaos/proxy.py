#!/usr/bin/env python3
"""TCP links that can be broken: a process that stands between servers, so that a busy test does not slow it down.

  proxy.py NAME=LISTEN:TARGET...     ports on loopback; listens on all of them, says `ready`, then obeys lines on its input,
                                     answering each with `done`:

  open NAME...     bytes go through
  cut NAME...      what is connected is reset, who connects is reset
  stall NAME...    nothing goes through and nothing is said; what was sent meanwhile goes on when the link opens, as TCP does
  mute NAME...     what is sent arrives, and no answer comes back until the link opens
  delay NAME...    each chunk waits for a moment

It ends with its input. Nothing is read ahead of a stalled link but one chunk each way.
"""
import asyncio
import os
import socket
import struct
import sys

DELAY_S = 0.15
CHUNK = 64 << 10


class Link:
    def __init__(self, listen, target):
        self.listen, self.target = listen, target
        # Whether bytes flow to the target, and from it.
        self.forth, self.back = asyncio.Event(), asyncio.Event()
        self.writers, self.pumps = set(), set()
        self.set("open")

    async def start(self):
        await asyncio.start_server(self.accept, "127.0.0.1", self.listen)

    def set(self, mode):
        self.delay, self.cut = DELAY_S if mode == "delay" else 0, mode == "cut"
        if self.cut:
            for writer in list(self.writers):
                reset(writer)
        for event, stopped_by in ((self.forth, ("stall",)), (self.back, ("stall", "mute"))):
            event.clear() if mode in stopped_by else event.set()

    async def accept(self, reader, writer):
        self.writers.add(writer)
        other = None
        try:
            await self.forth.wait()
            if self.cut:
                return reset(writer)
            there, other = await asyncio.open_connection("127.0.0.1", self.target)
            self.writers.add(other)
            for w in (writer, other):
                w.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.gather(self.pump(reader, other, self.forth), self.pump(there, writer, self.back))
        except OSError:
            pass
        finally:
            for w in filter(None, (writer, other)):
                self.writers.discard(w)
                reset(w)

    async def pump(self, reader, writer, flows):
        while chunk := await reader.read(CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await flows.wait()
            writer.write(chunk)
            await writer.drain()
        await flows.wait()
        writer.write_eof()


def reset(writer):
    """Closes with RST, as a peer that has died does."""
    sock = writer.get_extra_info("socket")
    if sock and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main():
    links = {}
    for argument in sys.argv[1:]:
        name, ports = argument.split("=")
        links[name] = Link(*map(int, ports.split(":")))
        await links[name].start()
    print("ready", flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        mode, *names = line.decode().split()
        for name in names:
            links[name].set(mode)
        print("done", flush=True)
    os._exit(0)  # connections and all


asyncio.run(main())
