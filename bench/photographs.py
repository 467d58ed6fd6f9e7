"""The default's protocol on real photographs: does its assay hold there? Writes the settings of such an experiment. In a clone of its own:

    python bench/photographs.py --data ../shared/data/coco-photos --weights resnet18.pth --params params.yaml && make repro

The folder holds `instances.json` and `images`; the weights are ImageNet's for torchvision's resnet18.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with instances.json and images")
    parser.add_argument("--weights", type=Path, required=True, help="torchvision's resnet18, a state dict")
    parser.add_argument("--params", type=Path, required=True, help="the file to write")
    parser.add_argument("--classes", nargs="+", default=["person", "car", "chair", "book"])
    parser.add_argument("--steps", type=int, default=150, help="of every arm; the start has twice as many")
    args = parser.parse_args()
    if missing := [path for path in (args.data / "instances.json", args.data / "images", args.weights) if not path.exists()]:
        parser.error(f"no such file or folder: {missing[0]}")
    if args.steps < 1:
        parser.error(f"--steps: {args.steps}")
    yaml = YAML()
    params = yaml.load((ROOT / "presets/own-data.yaml").read_text(encoding="utf-8"))
    local = {"train": {"annotations": "instances.json", "images": "images"}, "test_fraction": 0.4}
    params["data"].update(root=str(args.data.resolve()), local=local)
    params["select"]["categories"] = args.classes
    params["detector"].update(config="configs/mask_rcnn_R_18_FPN.yaml", init="imagenet", weights=str(args.weights.resolve()))
    params["pretrain"] = {"schedule": "fixed_steps", "steps": 2 * args.steps, "learning_rate": 0.0005}
    params["train"] = {"schedule": "fixed_steps", "steps": args.steps, "learning_rate": 0.0005}
    params["split"]["initial_fraction"] = 0.3
    arm = {"prev": "start", "policy": "annotate"}
    params["runs"] = {
        "human-1": {"judge": "human", **arm}, "always-1": {"judge": "always", **arm},
        "draw-none": {"judge": "never", **arm, "batch": 0}, "ceiling": {"judge": "never", **arm},
    }  # fmt: skip
    with args.params.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


if __name__ == "__main__":
    main()
