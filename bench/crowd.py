#!/usr/bin/env python3
"""Whether a crowd that does nothing slows down those who work: the speed of a few streams, alone and beside idle
connections and readers that do not read.

  bench/crowd.py http://127.0.0.1:8000 ./fathom --idle 2000 --slow 200

Each line: output tokens/s of 4 clients, and the median time per output token, by `fathom bench serve`. The limit of
open files must allow so many sockets (ulimit -n).
"""
import argparse
import json
import re
import socket
import subprocess
import time
from urllib.parse import urlsplit
from urllib.request import urlopen

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("url")
parser.add_argument("fathom", help="the program")
parser.add_argument("--idle", type=int, default=2000)
parser.add_argument("--slow", type=int, default=200)
parser.add_argument("--seconds", type=int, default=6)
options = parser.parse_args()
where = urlsplit(options.url)
address = (where.hostname, where.port or 80)


def measure(name):
    # Another seed each time: no prompt is in the cache from before.
    command = [options.fathom, "bench", "serve", "--url", options.url, "--concurrency", "4", "--gen", "200",
               "--prompt", "40", "--duration", str(options.seconds), "--seed", str(time.time_ns() % 1000000)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"^output tokens/s\s+(\S+)", text, re.M)[1]
    median = re.search(r"^TPOT, ms\s+\S+\s+(\S+)", text, re.M)[1]
    print(f"{name:<40} {rate:>8} tokens/s {median:>8} ms a token", flush=True)


def idle():
    s = socket.create_connection(address)
    s.sendall(f"GET /health HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
    assert s.recv(4096).startswith(b"HTTP/1.1 200"), "the server is not ready"
    return s


def slow(body):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(address)
    s.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
              f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return s


# No answer is under way.
def computed():
    with urlopen(options.url + "/metrics") as answer:
        metrics = answer.read().decode()
    return all(float(n) == 0 for n in re.findall(r"^fathom_num_requests_(?:running|waiting)\S* (\S+)", metrics, re.M))


measure("alone")
measure("alone")
crowd = [idle() for _ in range(options.idle)]
question = {"messages": [{"role": "user", "content": "What is 12 + 30?"}], "stream": True, "max_tokens": 300,
            "ignore_eos": True, "logprobs": True, "top_logprobs": 10}
crowd += [slow(json.dumps(question).encode()) for _ in range(options.slow)]
while not computed():  # then their answers wait to be read
    time.sleep(1)
measure(f"{options.idle} idle, {options.slow} slow readers")
measure(f"{options.idle} idle, {options.slow} slow readers")
for s in crowd:
    s.close()
time.sleep(1)
measure("alone")
measure("alone")
