"""The public names of fastrec, for type checkers and editors: a name that is not here does not exist."""

from fastrec.batches.adapters import BatchDataset as BatchDataset
from fastrec.config import Config as Config
from fastrec.data import Interactions as Interactions
from fastrec.data import Split as Split
from fastrec.data import leave_one_out as leave_one_out
from fastrec.data import load as load
from fastrec.data import load_split as load_split
from fastrec.data import ratio_split as ratio_split
from fastrec.data import time_split as time_split
from fastrec.errors import CheckpointError as CheckpointError
from fastrec.errors import ConfigError as ConfigError
from fastrec.errors import DataError as DataError
from fastrec.errors import FastrecError as FastrecError
from fastrec.errors import MissingPackageError as MissingPackageError
from fastrec.evaluation.comparison import compare as compare
from fastrec.evaluation.given_scores import evaluate_scores as evaluate_scores
from fastrec.evaluation.score import evaluate as evaluate
from fastrec.inference.audit import audit as audit
from fastrec.inference.export import export as export
from fastrec.inference.fold_in import fold_in as fold_in
from fastrec.inference.recommend import recommend as recommend
from fastrec.inference.recommender import Recommender as Recommender
from fastrec.inference.report.write import report as report
from fastrec.runs import open_run as open_run
from fastrec.sampling import NegativeSampler as NegativeSampler
from fastrec.training.job import train as train
from fastrec.training.update import update as update

__version__: str
__all__: list[str]
