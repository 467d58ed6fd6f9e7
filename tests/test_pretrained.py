"""Model folders from strangers: nothing in them runs, all that is loaded is in the identity, and what is broken is said in one line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import sys

import pytest
import tiny_autolabel
import tiny_vlm
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, Sam2Model, Sam2Processor

from vlm_itl.core.errors import UserError
from vlm_itl.core.pretrained import identity
from vlm_itl.judges.vlm.questions import Question
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
from vlm_itl.settings import VlmJudge
from vlm_itl.teachers.pseudo_labels import load_model, load_processor


@pytest.fixture
def folder(tmp_path):
    return tiny_vlm.llava(tmp_path / "m")


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that payloads make; and any question is answered with yes."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 50))
    return tmp_path / "marker"


def said(folder, **more) -> str:
    """What the judge says of a folder that it refuses."""
    settings = VlmJudge(**{"kind": "vlm", "model": str(folder), "device": "cpu", "dtype": "float32", **more})
    with pytest.raises(UserError) as error:
        TransformersBackend(settings).answer([Question("is it right", ())])
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def add(path, **content) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **content}))


def with_code(folder, marker) -> None:
    """Code of the folder's own for every part that can have some."""
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n")
    own = {name: "own.Own" for name in ("AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoModelForZeroShotObjectDetection",
                                        "AutoProcessor", "AutoImageProcessor", "AutoVideoProcessor")}  # fmt: skip
    tokenizer = {"AutoTokenizer": ["own.Own", "own.Own"]}
    add(folder / "config.json", auto_map=own, model_type="own")
    add(folder / "tokenizer_config.json", auto_map={**own, **tokenizer}, processor_class="Own", tokenizer_class="Own")
    for name in ("processor_config.json", "preprocessor_config.json"):
        add(folder / name, auto_map=own, processor_class="Own", image_processor_type="Own")
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "own.py", folder / "custom_generate/generate.py")


def test_code_in_a_judge_s_folder_does_not_run(folder, marker):
    with_code(folder, marker)
    assert "cannot be loaded" in said(folder)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["grounding_dino", "sam2"])
def test_code_in_a_teacher_s_folder_does_not_run(tmp_path, marker, kind):
    """Nor is anybody asked whether it may: `yes |` would answer."""
    folder = {**tiny_autolabel.DETECTORS, "sam2": tiny_autolabel.sam2}[kind](tmp_path / "m")
    with_code(folder, marker)
    model, processor = {
        "grounding_dino": (AutoModelForZeroShotObjectDetection, AutoProcessor), "sam2": (Sam2Model, Sam2Processor)
    }[kind]  # fmt: skip
    for load in (lambda: load_processor(processor, str(folder), None, "k"), lambda: load_model(model, str(folder), None, "cpu", "k")):
        with contextlib.suppress(UserError):  # a class that is named does not look at the folder's code, and may load
            load()
    assert not marker.exists()
    assert sys.stdin.tell() == 0


def test_pickled_weights_are_not_unpickled(folder, marker):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    assert "its weights are pickled (pytorch_model.bin), which can run code; save them as .safetensors" in said(folder)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(Sam2Model, str(folder), None, "cpu", "k")
    add(folder / "model.safetensors.index.json", metadata={}, weight_map={"lm_head.weight": "pytorch_model.bin"})
    assert "names 'pytorch_model.bin'; only .safetensors files in the folder itself" in said(folder)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../other/model.safetensors", "{elsewhere}/model.safetensors", "sub/model.safetensors"])
def test_weights_outside_the_folder_are_refused(folder, tmp_path, name):
    """They would load, and the identity would not change with them."""
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    shutil.move(folder / "model.safetensors", elsewhere)
    (folder / "sub").symlink_to(elsewhere)
    name = name.format(elsewhere=elsewhere)
    add(folder / "model.safetensors.index.json", metadata={}, weight_map={"lm_head.weight": name})
    assert f"names {name!r}; only .safetensors files in the folder itself are loaded" in said(folder)
    with pytest.raises(UserError, match=r"only \.safetensors files"):
        identity(str(folder), None, "autolabels: detector")


def test_shards_within_the_folder_load(folder):
    from safetensors.torch import load_file

    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    add(folder / "model.safetensors.index.json", metadata={}, weight_map=dict.fromkeys(whole, "model-00001-of-00001.safetensors"))
    back = TransformersBackend(VlmJudge(kind="vlm", model=str(folder), device="cpu", dtype="float32"))
    [head] = [name for name in whole if name.endswith("lm_head.weight")]
    assert back.model.lm_head.weight.equal(whole[head])


def test_an_adapter_alone_is_refused(folder):
    add(folder / "adapter_config.json", base_model_name_or_path="/elsewhere")
    assert "an adapter, whose base model is elsewhere; merge the two" in said(folder)


def test_weights_that_are_not_there_are_not_made_up(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith("lm_head.weight")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "lacks 1 of the weights of a LlavaForConditionalGeneration (lm_head.weight" in said(folder)


BROKEN = {
    "a list for config": ("config.json", "[1, 2]"),
    "no JSON": ("config.json", "{"),
    "deep JSON": ("config.json", "[" * 100_000),
    "nothing in it": ("config.json", ""),
    "a type that nobody knows": ("config.json", '{"model_type": "nothing"}'),
    "numbers for texts": ("config.json", '{"model_type": "llava", "text_config": 3}'),
    "another size": ("config.json", '{"model_type": "llava", "text_config": {"model_type": "llama", "hidden_size": 8}}'),
    "a tokenizer that is a list": ("tokenizer.json", "[]"),
    "a processor that is a list": ("processor_config.json", "[]"),
    "weights that are noise": ("model.safetensors", "noise " * 100),
    "no weights": ("model.safetensors", ""),
    "an index that is a list": ("model.safetensors.index.json", "[]"),
    "an index without weights": ("model.safetensors.index.json", '{"weight_map": [1]}'),
    "no text": ("config.json", "\udcff"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders_say_so_in_one_line(folder, case):
    name, content = BROKEN[case]
    (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert said(folder).startswith("params.yaml: judges: model: ")


def test_a_pipe_in_the_folder_does_not_hang(folder):
    before = identity(str(folder), None, "k")
    os.mkfifo(folder / "pipe.json")
    assert identity(str(folder), None, "k") == before
