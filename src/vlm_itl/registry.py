"""Every kind that params.yaml can name, one line each: its name there, and the class, as `package.module:Class`.

The classes are loaded when they are asked for, since some of them load torch. No stage depends on this file, so that another kind makes
nothing stale: a stage depends on the code of the kind that its settings name (`vlm_itl.core.code`).
"""

JUDGES = {
    "human": "vlm_itl.judges.human:HumanJudge",
    "noisy": "vlm_itl.judges.noisy:NoisyJudge",
    "confidence": "vlm_itl.judges.confidence:ConfidenceJudge",
    "random": "vlm_itl.judges.chance:RandomJudge",
    "always": "vlm_itl.judges.constant:AlwaysJudge",
    "never": "vlm_itl.judges.constant:NeverJudge",
    "person": "vlm_itl.judges.person.judge:PersonJudge",
    "vlm": "vlm_itl.judges.vlm.settings:VlmJudge",
}

DETECTORS = {
    "mask_rcnn": "vlm_itl.detectors.mask_rcnn.detector:MaskRcnn",
    "blobs": "vlm_itl.detectors.blobs:Blobs",
}

POLICIES = {
    "pool": "vlm_itl.loop.policies.pool:Pool",
    "annotate": "vlm_itl.loop.policies.annotate:Annotate",
    "correct": "vlm_itl.loop.policies.correct:Correct",
    "drop": "vlm_itl.loop.policies.drop:Drop",
    "ground_truth": "vlm_itl.loop.policies.ground_truth:GroundTruth",
}

SOURCES = {
    "synthetic": "vlm_itl.data.synthetic.source:SyntheticSource",
    "local": "vlm_itl.data.local:LocalSource",
    "coco2017": "vlm_itl.data.coco2017:Coco2017Source",
}

TEACHERS = {
    "grounded-sam2": "vlm_itl.teachers.grounded_sam2:GroundedSam2Teacher",
    "sam3": "vlm_itl.teachers.sam3:Sam3Teacher",
    "results": "vlm_itl.teachers.results:ResultsTeacher",
}
