"""`params.yaml` as types: what may stand there and what it means. Declarations alone; what is done with them is elsewhere.

No stage depends on these files: DVC watches the values. So nothing here may decide a result.
"""

from vlm_itl.core.fields import MAX_PIXELS as MAX_PIXELS
from vlm_itl.core.fields import Fraction as Fraction
from vlm_itl.core.fields import Model as Model
from vlm_itl.core.fields import Name as Name
from vlm_itl.core.fields import Probability as Probability
from vlm_itl.core.fields import Seed as Seed
from vlm_itl.core.fields import Steps as Steps
from vlm_itl.settings.data import Coco2017 as Coco2017
from vlm_itl.settings.data import Data as Data
from vlm_itl.settings.data import Local as Local
from vlm_itl.settings.data import LocalPart as LocalPart
from vlm_itl.settings.data import Select as Select
from vlm_itl.settings.data import Split as Split
from vlm_itl.settings.data import Synthetic as Synthetic
from vlm_itl.settings.detector import Detector as Detector
from vlm_itl.settings.detector import EarlyStopping as EarlyStopping
from vlm_itl.settings.detector import ModelLabels as ModelLabels
from vlm_itl.settings.detector import Predict as Predict
from vlm_itl.settings.detector import Training as Training
from vlm_itl.settings.evaluation import Compare as Compare
from vlm_itl.settings.evaluation import Evaluate as Evaluate
from vlm_itl.settings.evaluation import Seconds as Seconds
from vlm_itl.settings.everything import Settings as Settings
from vlm_itl.settings.judges import ConfidenceJudge as ConfidenceJudge
from vlm_itl.settings.judges import ConstantJudge as ConstantJudge
from vlm_itl.settings.judges import HumanJudge as HumanJudge
from vlm_itl.settings.judges import Judge as Judge
from vlm_itl.settings.judges import NoisyJudge as NoisyJudge
from vlm_itl.settings.judges import RandomJudge as RandomJudge
from vlm_itl.settings.judges import Render as Render
from vlm_itl.settings.judges import Server as Server
from vlm_itl.settings.judges import VlmJudge as VlmJudge
from vlm_itl.settings.judges import is_model_of as is_model_of
from vlm_itl.settings.probes import Calibration as Calibration
from vlm_itl.settings.probes import HoldBack as HoldBack
from vlm_itl.settings.probes import Lora as Lora
from vlm_itl.settings.probes import Prices as Prices
from vlm_itl.settings.probes import Probes as Probes
from vlm_itl.settings.probes import Verifier as Verifier
from vlm_itl.settings.reading import check as check
from vlm_itl.settings.reading import load as load
from vlm_itl.settings.reading import main as main
from vlm_itl.settings.reading import pick as pick
from vlm_itl.settings.reading import read_yaml as read_yaml
from vlm_itl.settings.reading import wanted as wanted
from vlm_itl.settings.report import Gallery as Gallery
from vlm_itl.settings.report import Report as Report
from vlm_itl.settings.runs import Run as Run
from vlm_itl.settings.teachers import AutoLabel as AutoLabel
from vlm_itl.settings.teachers import GroundedSam2 as GroundedSam2
from vlm_itl.settings.teachers import Sam3 as Sam3
from vlm_itl.settings.teachers import Teacher as Teacher
