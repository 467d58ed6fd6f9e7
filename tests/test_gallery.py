"""The gallery: which image belongs where, and that a page of strangers' text is harmless, in a real browser too."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, instance
from scipy.special import logit

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json
from vlm_itl.judges.verdict import Verdict, write
from vlm_itl.metrics.judges import judge_quality
from vlm_itl.report import gallery
from vlm_itl.settings import ConfidenceJudge, Gallery, HumanJudge, NoisyJudge, Render, VlmJudge

TEMPLATE = (ROOT / "src/vlm_itl/report/gallery.html.jinja").read_text()
A, B, C = (2, 2, 12, 12), (20, 2, 12, 12), (2, 22, 12, 12)
HOSTILE = "<script>document.title='owned'</script>\"><img src=x onerror=\"document.title='owned'\">\n  </pre>{{ 7 * 7 }} &amp; 'a'"
MAYBE = "\n\n\tmaybe " + HOSTILE + "\u202e" * 9
HOSTILE_NAME = "<b onclick=\"x\">bird</b>'\"></td><script>document.title='owned'</script>"
VLM = VlmJudge(kind="vlm", model="some/model", render=Render(original=False))


def verdict(image_id: int, approve: bool, proposals: int = 1, **more) -> Verdict:
    return Verdict(image_id, proposals, proposals > 0, "model", approve, **more)


def crowd(box: tuple[int, int, int, int]) -> dict:
    return instance(box, iscrowd=1)


CASES = {  # proposals, truth, approved, accepted, group
    "approved and complete": ([A, B], [A, B], True, None, "right"),
    "approved with one extra": ([A, B], [A], True, None, "partly right"),
    "approved with one missing": ([A], [A, B], True, None, "partly right"),
    "approved, one instance twice": ([A, A], [A], True, None, "partly right"),
    "approved with none right": ([C], [A, B], True, None, "wrong"),
    "needless rejection": ([A, B], [B, A], False, None, "wrong"),
    "right rejection": ([A], [A, B], False, None, "right"),
    "the accepted are complete": ([A, C], [A], True, [True, False], "right"),
    "one accepted too many": ([A, C], [A], True, [True, True], "partly right"),
    "only a wrong one accepted": ([A, C], [A], True, [False, True], "wrong"),
    "rejected, though the accepted are complete": ([A, C], [A], False, [True, False], "wrong"),
    "rejected, a right one refused": ([A, B], [A, B], False, [True, False], "right"),
}


@pytest.mark.parametrize("case", CASES)
def test_groups(case):
    proposals, truth, approve, accepted, group = CASES[case]
    said = verdict(1, approve, len(proposals), **({} if accepted is None else {"accepted": accepted}))
    assert gallery.group_of(said, [instance(b) for b in proposals], [instance(b) for b in truth], 0.6) == group


def test_groups_with_crowd_regions():
    truth = [instance(A), crowd((20, 0, 30, 40))]
    group = lambda approve, *boxes: gallery.group_of(verdict(1, approve, len(boxes)), [instance(b) for b in boxes], truth, 0.6)  # noqa: E731
    assert group(True, A, B) == "right"  # a mask on a crowd is neither needed nor extra
    assert group(False, A, B) == "wrong"
    assert group(True, A, B, C) == "partly right"
    assert group(True, B) == "wrong"  # and it is not a right mask


def random_image(rng: random.Random) -> tuple[list[dict], list[dict]]:
    """(proposals, truth) of which some fit well, some a little and some have another class."""
    shift = lambda b: (b[0] + rng.choice((0, 0, 1, 3)), b[1], b[2], b[3])  # noqa: E731
    truth = [instance(b, rng.choice((1, 1, 2)), iscrowd=int(rng.random() < 0.2)) for b in rng.choices((A, B, C), k=rng.randint(0, 4))]
    proposals = [instance(shift(b), rng.choice((1, 1, 2)), score=0.5) for b in rng.choices((A, B, C), k=rng.randint(1, 5))]
    return proposals, truth


def test_counts_agree_with_the_measure_of_the_judge(tmp_path):
    rng, proposals, verdicts, truth = random.Random(1), [], [], scene(range(1, 61))
    truth["annotations"] = []
    for i in range(1, 61):
        mine, true = random_image(rng)
        mine = mine if rng.random() < 0.9 else []
        proposals += [{**row, "image_id": i} for row in mine]
        truth["annotations"] += [{**row, "image_id": i} for row in true]
        verdicts.append(verdict(i, bool(mine) and rng.random() < 0.5, len(mine)))
    photographs(tmp_path, truth)
    content = gallery.collect(verdicts, proposals, truth, truth, tmp_path, ConfidenceJudge(kind="confidence"), 0.6, Gallery(per_group=1))
    quality = judge_quality(verdicts, proposals, truth, 0.6)
    counts = {group.name: group.count for group in content.groups}
    assert min(counts.values()) > 0
    assert sum(counts.values()) == content.asked == quality.asked
    assert content.not_asked == quality.not_asked > 0
    assert counts["right"] == round(quality.accuracy * quality.asked)
    assert sum(group.approved for group in content.groups) == quality.approved


def test_chosen_by_seed_and_image_not_by_order():
    rows = [verdict(i, True) for i in range(40)]
    chosen = [v.image_id for v in gallery.choose(rows, 8, 0)]
    assert chosen == [v.image_id for v in gallery.choose(rows[::-1], 8, 0)]
    assert chosen != [v.image_id for v in gallery.choose(rows, 8, 1)]
    # an image less moves up the next one and no other
    fewer = [v.image_id for v in gallery.choose([v for v in rows if v.image_id != chosen[3]], 8, 0)]
    assert fewer[:7] == chosen[:3] + chosen[4:]


def scene(ids, name: str = "bird") -> dict:
    """A pool, or truth with one instance an image."""
    ids = list(ids)
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 50} for i in ids],
        "annotations": [{**instance(A, 1, i), "id": i} for i in ids],
        "categories": [{"id": 1, "name": name}, {"id": 2, "name": "book"}],
    }


def photographs(folder: Path, data: dict) -> None:
    for image in data["images"]:
        pixels = np.random.default_rng(image["id"]).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / image["file_name"])


def made(folder: Path, verdicts: list[Verdict], proposals: list[dict], truth: dict, judge, per_group: int = 8) -> str:
    """A page about these verdicts."""
    photographs(folder, truth)
    content = gallery.collect(verdicts, proposals, truth, truth, folder, judge, 0.6, Gallery(per_group=per_group))
    return gallery.render(TEMPLATE, "run-1", "judge", content)


@pytest.fixture
def hostile(tmp_path) -> str:
    """A page with markup and scripts wherever a stranger's text can be."""
    truth = scene([1, 2], HOSTILE_NAME)
    truth["images"][1]["original_name"] = f"under/{HOSTILE_NAME}.jpg"
    proposals = [instance(A, 1, 1, score=0.9), instance(A, 1, 2, score=0.8), instance(B, 1, 2, score=0.7)]
    verdicts = [
        verdict(1, True, 1, log_odds=float(logit(0.875)), answer=HOSTILE, outcome="approve", reason=HOSTILE),
        verdict(2, False, 2, answer=MAYBE, outcome="unparsed", reason=HOSTILE),
    ]
    return made(tmp_path, verdicts, proposals, truth, VlmJudge(kind="vlm", model=HOSTILE))


class Elements(HTMLParser):
    """(tag, attributes) of every start tag, and the text, as a browser without scripts would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.pieces: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data
        self.pieces += data.split()

    @property
    def words(self) -> str:
        return " ".join(self.pieces)


def test_strangers_text_is_text(hostile):
    page = Elements(hostile)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 6
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not [a for _, attributes in page.tags for a in ("href",) if not attributes.get(a, "#").startswith("#")]
    assert page.text.count(HOSTILE) == 5  # two answers, two reasons, the model's name; whitespace and all
    assert page.text.count(HOSTILE_NAME) == 6  # of five masks, and in a file name
    assert MAYBE in page.text
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_an_image_is_called_by_the_users_file_name(hostile):
    assert Elements(hostile).words.count(" ".join(f"image 2 under/{HOSTILE_NAME}.jpg".split())) == 1
    assert "image 1 under" not in Elements(hostile).words


def test_the_page_says_what_there_is_to_say(hostile):
    text = Elements(hostile).words
    for words in ("run-1", "vision-language model", "P(approve) 0.88", "unparsed", "1 of 2 masks right",
                  "No image here.", "2 images: 1 approved, 1 rejected"):  # fmt: skip
        assert words in text, words
    assert "Simulated" not in text
    assert "1 of them shown" not in text
    assert "answers unparsed" not in text  # of questions there is one count, and it stands in metrics/asking, the table and the report


@pytest.mark.parametrize(
    ("judge", "simulated"),
    [(HumanJudge(kind="human"), True), (NoisyJudge(kind="noisy", recall=1, specificity=1), True),
     (ConfidenceJudge(kind="confidence"), False), (VLM, False)],
)  # fmt: skip
def test_simulated_judges_are_called_so(tmp_path, judge, simulated):
    page = made(tmp_path, [verdict(1, True)], [instance(A, score=0.9)], scene([1]), judge)
    assert ("<b>Simulated.</b> No VLM and no person took part" in page) is simulated


def test_all_are_counted_and_some_are_shown(tmp_path):
    ids = range(1, 8)
    verdicts = [verdict(i, True) for i in ids] + [verdict(8, False, 0)]
    page = made(tmp_path, verdicts, [instance(A, 1, i, score=0.9) for i in ids], scene(range(1, 9)), VLM, per_group=3)
    text = Elements(page).words
    assert "7 images asked about, 1 without proposals not asked" in text
    assert "7 images: 7 approved, 0 rejected; 3 of them shown" in text
    assert page.count("<article") == 3
    assert "image 8" not in text
    assert page.count("No image here.") == 2


def test_every_mask_alone(tmp_path):
    """Of a judge that decides on each proposal: what it decided, and a needlessly refused mask is missed."""
    proposals = [instance(box, 1, 1, score=0.9) for box in (A, B, C)]
    truth = scene([1])
    truth["annotations"].append({**instance(B), "id": 2})
    said = verdict(
        1,
        True,
        3,
        accepted=[True, False, True],
        log_odds_mask=[float(logit(0.91)), None, float(logit(0.62))],
        questions=4,
        outcome="approve",
        reason="",
    )
    photographs(tmp_path, truth)
    judge = VlmJudge(kind="vlm", model="some/model", unit="instance")
    content = gallery.collect([said], proposals, truth, truth, tmp_path, judge, 0.6, Gallery())
    (card,) = content.groups[1].cards
    assert [(e.state, e.accepted, e.p) for e in card.proposals] == [("right", True, 0.91), ("right", False, None), ("wrong", True, 0.62)]
    assert [(e.number, e.state) for e in card.instances] == [(1, "found"), (2, "missed")]
    assert [e.iou for e in card.proposals] == [1, 1, 0]
    assert card.outcome == "but 1 of 2 masks right, 1 missed"
    text = Elements(gallery.render(TEMPLATE, "r", "j", content)).words
    assert "asked about each mask alone" in text
    assert "0.91 accepted right" in text
    assert "- refused right" in text
    assert "0.62 accepted wrong" in text


def test_a_mask_on_an_ignored_region_counts_neither_way():
    truth = [instance(A), crowd((20, 0, 30, 40))]
    plain, look = np.full((40, 50, 3), 120, np.uint8), Render()
    proposals = [instance(A, score=1), instance(B, score=1), instance(C, score=1)]
    card = gallery.draw(verdict(1, True, 3), plain, proposals, truth, {1: "bird"}, look, 0.6)
    assert [e.state for e in card.proposals] == ["right", "ignored", "wrong"]
    assert card.outcome == "but 1 of 2 masks right"
    assert gallery.draw(verdict(1, True, 2), plain, proposals[:2], truth, {1: "bird"}, look, 0.6).outcome == "rightly: everything is there"


def test_pictures_are_as_judged_and_true_masks_have_their_proposals_colours(tmp_path):
    truth = scene([1])
    truth["annotations"] = [instance(C), instance(B), instance(A), crowd((30, 20, 15, 15))]
    plain = np.full((40, 50, 3), 120, np.uint8)
    names = {1: "bird"}
    look = Render(original=False, contour=3, alpha=1)
    card = gallery.draw(verdict(1, True, 2), plain, [instance(A, score=1), instance(B, score=1)], truth["annotations"], names, look, 0.6)
    judged, true = (np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(p.url.partition(",")[2])))) for p in card.pictures)
    assert [p.caption for p in card.pictures] == ["As judged", "True masks"]
    assert [e.state for e in card.instances] == ["found", "found", "missed", "ignored"]
    assert [e.number for e in card.instances] == [1, 2, 3, 4]
    colours = [np.array(list(bytes.fromhex(e.colour[1:]))) for e in card.instances]
    for picture, places in ((judged, (A, B)), (true, (A, B, C, (30, 20, 15, 15)))):
        for (x, y, w, h), colour in zip(places, colours):
            assert np.abs(picture[y + h // 2, x + w // 2].astype(int) - colour).max() < 25  # JPEG
    assert np.abs(judged[28, 8].astype(int) - 120).max() < 25


def test_a_photograph_is_beside_where_the_judge_saw_one(tmp_path):
    both = [made(tmp_path, [verdict(1, True)], [instance(A, score=0.9)], scene([1]), VLM.model_copy(update={"render": Render(original=o)}))
            for o in (False, True)]  # fmt: skip
    assert [page.count("<img") for page in both] == [2, 3]


def test_large_photographs_do_not_make_the_page_large():
    picture = gallery.jpeg("x", np.zeros((2000, 3000, 3), np.uint8))
    assert (picture.width, picture.height) == (gallery.LONGEST, gallery.LONGEST * 2 // 3)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image_id": 9}, "image 9: a verdict on 1 proposals, and 0 are there"),
        ({"proposals": 2}, "image 1: a verdict on 2 proposals, and 1 are there"),
    ],
)
def test_verdicts_about_something_else_are_refused(tmp_path, change, why):
    with pytest.raises(UserError, match=why):
        made(tmp_path, [replace(verdict(1, True), **change)], [instance(A, score=0.9)], scene([1]), VLM)


def test_the_stage_gives_equal_bytes_anywhere_and_no_paths(tmp_path):
    """Also: half a surrogate pair in an answer is no reason to fail."""
    pages = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        (folder / "images").mkdir(parents=True)
        truth = scene([1, 2, 3])
        photographs(folder / "images", truth)
        write_json(folder / "truth.json", truth)
        write_json(folder / "pool.json", {**truth, "annotations": []})
        write_json(folder / "proposals.json", [instance(A, 1, i, score=0.9) for i in (1, 2)])
        write(folder / "verdicts.jsonl", [verdict(1, True, answer="cut: ?"), verdict(2, False), verdict(3, False, 0)])
        (folder / "verdicts.jsonl").write_text((folder / "verdicts.jsonl").read_text().replace("cut: ?", "cut: \\ud83d"))
        (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
        files = [f"--{n}={n}.json" for n in ("truth", "pool", "proposals")]
        done = subprocess.run(
            [sys.executable, "-m", "stages.gallery", "--run=human-1", "--judge=human", *files, "--verdicts=verdicts.jsonl",
             "--images=images", f"--template={ROOT / 'src/vlm_itl/report/gallery.html.jinja'}", "--page=out/gallery.html",
             "--examples=out/examples.json"],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "1 right, 0 partly right, 1 wrong" in done.stdout
        assert "drawing the gallery" in done.stderr
        pages.append((folder / "out/gallery.html").read_text())
    assert pages[0] == pages[1]
    assert "cut: ?" in pages[0]
    assert str(tmp_path) not in pages[0]
    assert not re.search(r"\b20\d\d-\d\d", re.sub('base64,[^"]*', "", pages[0]))


@pytest.mark.timeout(120)
def test_no_script_runs_in_a_browser(hostile, browser, tmp_path):
    """Escaping holds; were it forgotten, the policy would; and were both gone, this way of testing would notice."""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    forgotten = html.unescape(hostile)
    pages = {"as made": hostile, "not escaped": forgotten, "neither": policy.sub("", forgotten)}
    titles = {}
    for name, page in pages.items():
        (tmp_path / "page.html").write_text(page)
        browser.open(tmp_path / "page.html")
        titles[name] = browser.value("document.title")
    assert titles["as made"] == "run-1: judge judge (vision-language model)"
    assert titles["not escaped"].startswith("run-1")
    assert titles["neither"] == "owned"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it(hostile, browser, tmp_path, width):
    (tmp_path / "page.html").write_text(hostile)
    browser.open(tmp_path / "page.html", width)
    images = json.loads(browser.value("JSON.stringify([...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth > 100]))"))
    assert images == [[True, 50, True]] * 6
    assert browser.value("document.scripts.length") == 0
    said = json.loads(browser.value("JSON.stringify([...document.querySelectorAll('pre')].map(p => p.textContent))"))
    assert sorted(said) == sorted([HOSTILE, HOSTILE, HOSTILE, MAYBE])  # to the letter
    assert browser.value("getComputedStyle(document.querySelector('pre')).whiteSpace") == "pre-wrap"
    assert browser.value("document.documentElement.scrollWidth") <= width  # nothing sticks out
    browser.screenshot(tmp_path / "page.png")
    assert len(PIL.Image.open(tmp_path / "page.png").convert("RGB").getcolors(2**24)) > 1000
