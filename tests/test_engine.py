"""Independent pieces of work: in this process, and by the nodes of a Ray cluster, which come and go."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT
from people import A, B, world
from pieces import Dies, Refuses, Squares

from vlm_itl.core.errors import UserError
from vlm_itl.engine import Engine, chosen, values

pytestmark = pytest.mark.xdist_group("ray")  # one cluster at a time
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: make cluster")


@pytest.mark.parametrize(
    ("text", "engine"),
    [
        ("", Engine()), ("local", Engine()), ("ray", Engine(kind="ray")),
        ("ray address=10.0.0.1:6379 workers=4 cpus=.5 gpus=1", Engine(kind="ray", address="10.0.0.1:6379", workers=4, cpus=0.5, gpus=1)),
    ],
)  # fmt: skip
def test_the_environment_names_an_engine(monkeypatch, text, engine):
    monkeypatch.setenv("VLM_ITL_ENGINE", text)
    assert chosen() == engine


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dask", "kind: Input should be 'local' or 'ray'"), ("ray workers=0", "workers: Input should be greater"),
        ("ray nodes=3", "nodes: Extra inputs are not permitted"), ("ray workers", "workers: Input should be a valid integer"),
        ("ray address=a;b", "address: String should match pattern"), ("ray gpus=nan", "gpus: Input should be"),
    ],
)  # fmt: skip
def test_an_engine_that_is_none_is_one_line(monkeypatch, text, message):
    monkeypatch.setenv("VLM_ITL_ENGINE", text)
    with pytest.raises(UserError, match=rf"^VLM_ITL_ENGINE: {message}.*; as in: ray address=auto workers=4 cpus=2 gpus=1$"):
        chosen()


def test_this_process_loads_once(tmp_path):
    found = list(values(Engine(), partial(Squares, tmp_path), range(4), "numbers"))
    assert [row[0] for row in found] == [0, 1, 4, 9]
    assert (tmp_path / "pieces").read_text().split() == ["0", "1", "2", "3"]
    assert len(list(tmp_path.glob("loaded.*"))) == 1


# ---- Ray


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each. Nodes that a test adds or takes away, it puts back."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AUTH_MODE": "disabled"}
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture
def engine(cluster, monkeypatch) -> Engine:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    return Engine(kind="ray", address=cluster.address, workers=2)


def by_node(said: str) -> dict[str, int]:
    return {name: int(count) for name, count in re.findall(r"node ([0-9a-f]{8}): (\d+)", said)}


@needs_ray
def test_both_nodes_work_and_the_values_come_in_order(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    found = list(values(engine, partial(Squares, tmp_path, 0.05, 2), range(40), "numbers"))
    assert found == [[k * k, "1", str(tmp_path)] for k in range(40)]  # as this process would have it, in the same folder
    assert sorted(map(int, (tmp_path / "pieces").read_text().split())) == list(range(40))  # each once
    counts = by_node(capsys.readouterr().out)
    assert len(counts) == 2
    assert sum(counts.values()) == 40
    assert len(list(tmp_path.glob("loaded.*"))) == 2


@needs_ray
def test_a_node_that_is_killed_loses_nothing(cluster, engine, tmp_path, capsys):
    """In mid-run; another one comes and takes part."""
    coming = values(engine, partial(Squares, tmp_path, 0.1), range(60), "numbers")
    found = [next(coming) for _ in range(10)]
    other = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)
    cluster.remove_node(other, allow_graceful=False)
    found += [next(coming) for _ in range(10)]
    cluster.add_node(num_cpus=1)
    found += list(coming)
    assert [row[0] for row in found] == [k * k for k in range(60)]
    said = capsys.readouterr().out
    assert "has died; another one takes its place" in said
    assert sum(by_node(said).values()) == 60
    again = [int(k) for k in (tmp_path / "pieces").read_text().split()]
    assert set(again) == set(range(60))
    assert len(again) <= 62  # only what the dead worker had in hand


@needs_ray
def test_an_error_of_a_worker_is_the_error(engine):
    with pytest.raises(UserError, match=r"^piece 3: it cannot be done$"):
        list(values(engine, Refuses, range(10), "numbers"))


@needs_ray
def test_workers_that_die_without_end_are_an_error(engine):
    with pytest.raises(UserError, match=r"^VLM_ITL_ENGINE: \d+ workers in a row have died; a piece may need more memory"):
        list(values(engine, Dies, range(10), "numbers"))


@needs_ray
def test_no_cluster_is_one_line(monkeypatch, tmp_path):
    with pytest.raises(
        UserError, match=r"^VLM_ITL_ENGINE: no Ray cluster at 127\.0\.0\.1:9: Connection refused; `ray start --head` starts one$"
    ):
        list(values(Engine(kind="ray", address="127.0.0.1:9"), partial(Squares, tmp_path), range(2), "numbers"))


@needs_ray
def test_a_prediction_is_the_same_to_the_byte(engine, tmp_path, monkeypatch, capsys):
    """Killed after some batches, it goes on, whichever engine began."""
    from tiny_detector import detector, pictures, predicted, steps

    from vlm_itl.detectors.mask_rcnn.training import train

    monkeypatch.chdir(tmp_path)
    data, images = pictures(tmp_path)
    train(data, images, tmp_path / "model", detector(), steps(10), 1, None)
    here = predicted(Path("model"), data, Path(), 0.05, 2)
    capsys.readouterr()
    monkeypatch.setenv("VLM_ITL_ENGINE", f"ray address={engine.address} workers=2")
    assert predicted(Path("model"), data, Path(), 0.05, 2) == here != []
    assert sum(by_node(capsys.readouterr().out).values()) == 6


@needs_ray
def test_verdicts_are_the_same_to_the_byte(engine, tmp_path, monkeypatch, capsys):
    """Questions go to the cluster without their pictures, but those whose pictures nobody can draw again."""
    from tiny_vlm import llava

    from vlm_itl.judges.vlm.composing import Composer
    from vlm_itl.judges.vlm.judging import judge, make_backend
    from vlm_itl.judges.vlm.store import Store
    from vlm_itl.probes.consistency import vary
    from vlm_itl.settings import VlmJudge

    monkeypatch.chdir(tmp_path)
    pool, proposals = world(tmp_path / "images", {k: [A, B][: k % 3] for k in range(1, 9)})
    s = VlmJudge(kind="vlm", model=str(llava(Path("model"))), device="cpu", dtype="float32", batch_size=2, answer="probability", min_mass=0)
    prompt = "Are these right: {pred_class_names_str}? {options}"

    def verdicts(store: str):
        return judge(pool, proposals, Path("images"), prompt, s, Store(tmp_path / store))

    composer = Composer(pool, proposals, Path("images"), prompt, s)
    plain = composer.question("image", composer.asked[0], composer.shown[composer.asked[0]["id"]])
    blank = vary(plain, "blank", "")
    assert plain.without_pixels().pictures == ()
    assert plain.without_pixels().with_pixels().pictures[0].tobytes() == plain.pictures[0].tobytes()
    assert blank.without_pixels() is blank
    here, identity, took = verdicts("here")
    [(_, grey)] = make_backend(s, Store(tmp_path / "here")).ask([(0, blank)])
    monkeypatch.setenv("VLM_ITL_ENGINE", f"ray address={engine.address} workers=2")
    capsys.readouterr()
    there, same, other = verdicts("there")
    assert (there, same) == (here, identity)
    assert len({v.log_odds for v in here if v.asked}) > 1
    assert (took["machines"], other["machines"]) == (1, len(by_node(capsys.readouterr().out)))  # a worker on each node
    assert verdicts("there")[0] == here
    assert "batches of questions by Ray" not in capsys.readouterr().out  # all are in the store
    [(_, answer)] = make_backend(s, Store(tmp_path / "there")).ask([(0, blank)])
    assert answer.log_odds == grey.log_odds


@needs_ray
def test_pseudo_labels_are_the_same_to_the_byte(engine, tmp_path, monkeypatch, capsys):
    import tiny_autolabel
    from tiny_detector import pictures

    from vlm_itl.settings import GroundedSam2
    from vlm_itl.teachers.grounded_sam2 import GroundedSam2Teacher

    monkeypatch.chdir(tmp_path)
    data, images = pictures(tmp_path)
    data = {**data, "annotations": []}
    detector = tiny_autolabel.DETECTORS["grounding_dino"](tmp_path / "detector")
    paths = {"detector": str(detector), "segmenter": str(tiny_autolabel.sam2(tmp_path / "sam2"))}
    s = GroundedSam2(kind="grounded-sam2", **paths, device="cpu", batch_size=2, box_threshold=0.05, text_threshold=0.05)
    here = GroundedSam2Teacher.label(s, data, images, Path())
    capsys.readouterr()
    monkeypatch.setenv("VLM_ITL_ENGINE", f"ray address={engine.address} workers=2")
    assert GroundedSam2Teacher.label(s, data, images, Path()) == here
    assert here[0]
    assert sum(by_node(capsys.readouterr().out).values()) == 6


def free_port() -> int:
    """Where Ray's own parts do not listen: its workers take 10002 to 19999, all else what the system gives, from 32768 on."""
    for port in random.sample(range(21_000, 29_000), 100):
        with suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("no port is free")


STARTED = """
import sys
from functools import partial
from pathlib import Path
from pieces import Squares
from vlm_itl.core.errors import UserError
from vlm_itl.engine import Engine, values
try:
    for number, value in enumerate(values(Engine(kind="ray", address=sys.argv[1], workers=2), partial(Squares, Path(sys.argv[2]), 0.3),
                                          range(int(sys.argv[3])), "numbers")):
        print(value[0], flush=True)
except UserError as error:
    sys.exit(f"error: {error}")
"""


@needs_ray
def test_ray_as_people_start_it(tmp_path):
    """`ray start`, twice, with a token. The head goes in mid-run: that ends in a line, and soon."""
    port = free_port()
    ray = [str(Path(sys.executable).with_name("ray"))]
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}  # the modes of other clusters
    env = {**own, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "RAY_USAGE_STATS_ENABLED": "0"}
    env |= {"RAY_gcs_rpc_server_reconnect_timeout_s": "5", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    heads = []

    def start(*words: str) -> None:
        command = [*ray, "start", *words, "--num-cpus", "1", "--block"]
        heads.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True))

    try:
        start("--head", "--port", str(port), "--include-dashboard", "false")
        deadline = time.monotonic() + 120
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        start("--address", f"127.0.0.1:{port}")
        script = [sys.executable, "-c", STARTED, f"127.0.0.1:{port}", str(tmp_path)]
        done = subprocess.run([*script, "6"], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.stdout.splitlines()[:6] == ["0", "1", "4", "9", "16", "25"], done.stderr
        run = subprocess.Popen([*script, "1000"], env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert run.stdout.readline() == "0\n"
        os.killpg(heads[0].pid, signal.SIGKILL)
        _, said = run.communicate(timeout=120)
        assert run.returncode == 1
        assert "error: VLM_ITL_ENGINE: the Ray cluster is lost" in said
    finally:
        for head in heads:
            with suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
            head.wait()
