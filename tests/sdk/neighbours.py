#!/usr/bin/env python3
"""Measures what programs cost each other: run with PEERCTL=path/to/peerctl, nothing else. Prints three figures.

Memory of the broker with 150 frames of 1 MiB that were begun and not ended; with 60 connections that pipeline 256 sends of
60 kB each; and how long one session waits for one answer beside another that has 250 histories over 3,000 messages under way.
"""

import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from wire_client import SEND, Client, integer, listing, option, string

HISTORY = 16
REPLY_HISTORY = 11
FRAME_BYTES = 1024 * 1024


def memory_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def begun(path):
    """A connection with a frame that was begun: as much of it as the broker takes."""
    client = Client(path)
    client.hello()
    client.socket.setblocking(False)
    rest = memoryview(struct.pack("<I", FRAME_BYTES) + bytes(FRAME_BYTES - 1))
    while rest and select.select([], [client.socket], [], 0.1)[1]:
        rest = rest[client.socket.send(rest) :]
    return client


def send_body(text):
    none = option(None, None)
    return listing(["sink"], string) + string(text) + none + none + none + none + listing([], string) + none


def registered(path, name):
    client = Client(path)
    client.socket.settimeout(300)
    client.hello()
    client.register(name)
    return client


def pipeline(client, sends):
    """Sends without waiting, while another thread reads the answers."""

    def read():
        while len(client.replies) < sends:
            client.read_frame()

    client.replies = {}
    reader = threading.Thread(target=read)
    reader.start()
    for number in range(sends):
        client.submit(SEND, send_body(f"{number} " + "x" * 60_000))
    reader.join()


def history_body():
    return option(None, None) * 7 + integer(200)


def main():
    with tempfile.TemporaryDirectory(prefix="pd", dir="/tmp") as root:
        environment = {"HOME": root, "PEERD_DIR": f"{root}/state", "PATH": os.environ["PATH"]}
        os.mkdir(f"{root}/state", 0o700)
        with open(f"{root}/state/config.toml", "w") as config:
            config.write("[limits]\nsender_per_minute = 1000000\npair_per_minute = 1000000\n")
        broker = subprocess.Popen([os.environ["PEERCTL"], "daemon", "run"], env=environment)
        path = f"{root}/state/broker.sock"
        try:
            while not os.path.exists(path):
                time.sleep(0.05)
            before = memory_mib(broker.pid)
            crowd = [begun(path) for _ in range(150)]
            print(f"150 frames begun: {before:.0f} MiB before, {memory_mib(broker.pid):.0f} MiB with them", flush=True)
            for client in crowd:
                client.socket.close()

            sink = registered(path, "sink")
            senders = [registered(path, f"sender{number}") for number in range(60)]
            before = memory_mib(broker.pid)
            threads = [threading.Thread(target=pipeline, args=(client, 256)) for client in senders]
            for thread in threads:
                thread.start()
            most = 0
            while any(thread.is_alive() for thread in threads):
                most = max(most, memory_mib(broker.pid))
                time.sleep(0.01)
            print(f"60 pipelining senders: {before:.0f} MiB before, at most {most:.0f} MiB", flush=True)
            for client in [sink, *senders]:
                client.socket.close()

            for part in range(4):
                registered(path, f"reader{part}")
            writer = registered(path, "writer")
            for number in range(3_000):
                writer.send([f"reader{number % 4}"], f"message {number}")
            modest = registered(path, "modest")
            alone = answer_ms(modest)
            asked = [writer.submit(HISTORY, history_body()) for _ in range(250)]
            reader = threading.Thread(target=lambda: [writer.answer(id, REPLY_HISTORY) for id in asked])
            reader.start()
            beside = []
            # More than a thousand would not fit into a mailbox.
            while reader.is_alive() and len(beside) < 900:
                beside.append(answer_ms(modest))
            reader.join()
            beside.sort()
            print(
                f"one answer: {alone:.0f} ms alone; beside 250 histories {beside[len(beside) // 2]:.0f} ms in the middle,"
                f" {beside[-1]:.0f} ms at most, of {len(beside)}"
            )
        finally:
            broker.terminate()
            broker.wait()


def answer_ms(client):
    started = time.monotonic()
    client.send(["writer"], f"one thing {started}")
    return (time.monotonic() - started) * 1_000


if __name__ == "__main__":
    main()
