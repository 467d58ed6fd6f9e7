"""What the death of a server costs: three servers, of which one is killed in mid-run, beside three and two that live.

The servers are processes on loopback that pretend to judge: each works on so many questions at a time, so long on each. What is measured is
how the questions are shared, not a model.

Usage: python bench/servers.py [--questions 1200] [--latency 0.2] [--capacity 4] [--repeats 3]
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "bench")]

from rates import show

from vlm_itl.judges.vlm.judging import Asker
from vlm_itl.judges.vlm.openai_backend import OpenAIBackend
from vlm_itl.judges.vlm.questions import Question
from vlm_itl.judges.vlm.store import Store
from vlm_itl.settings import VlmJudge


@contextmanager
def serving(latency: float, capacity: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server's address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "tests/vlm_server.py"), str(port), str(latency), str(capacity)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        process.stdout.readline()
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.kill()
        process.wait()


def ask(number: int, servers: int, kill: bool, latency: float, capacity: int) -> tuple[float, float]:
    """Answers a second over the whole run, and over its last half, in which one server is dead if it was to be killed."""
    with ExitStack() as stack:
        running = [stack.enter_context(serving(latency, capacity)) for _ in range(servers)]
        own = {"base_urls": [url for url, _ in running], "concurrency": 4 * capacity}
        settings = VlmJudge.model_validate({"kind": "vlm", "backend": "openai", "model": "m", "server": own})
        store = Store(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        came: list[float] = []

        def questions() -> Iterator[Question]:
            for k in range(number):
                if k == number // 3:
                    came.append(time.perf_counter())
                    if kill:
                        running[-1][1].kill()
                if k == number // 2:
                    came.append(time.perf_counter())
                yield Question(f"question {k}", ())

        backend = OpenAIBackend(settings, store)
        start = time.perf_counter()
        answers = Asker(settings, backend, store).ask(questions(), number, f"{servers} servers{', one dies' if kill else ''}")
        end = time.perf_counter()
    assert len(answers) == number
    return number / (end - start), (number - number // 2) / (end - came[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=1200)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds that a question takes")
    parser.add_argument("--capacity", type=int, default=4, help="questions that a server works on at a time")
    parser.add_argument("--repeats", type=int, default=3)
    a = parser.parse_args()
    whole: dict[str, list[float]] = {}
    last: dict[str, list[float]] = {}
    for _ in range(a.repeats):
        for way, servers, kill in (("two servers", 2, False), ("three servers", 3, False), ("three, one dies after a third", 3, True)):
            rates = ask(a.questions, servers, kill, a.latency, a.capacity)
            whole.setdefault(way, []).append(rates[0])
            last.setdefault(way, []).append(rates[1])
    print(f"no answer is lost; whole run, at most {a.capacity / a.latency:.0f} answers/s a server:")
    show(whole, "answers/s")
    print("its last half:")
    show(last, "answers/s")
    dead, two = (statistics.median(last[way]) for way in ("three, one dies after a third", "two servers"))
    print(f"with one of three dead: {dead / two:.2f} of the throughput of two")


if __name__ == "__main__":
    main()
