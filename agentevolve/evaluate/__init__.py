"""Phase four: what an attempt's outcome says about a policy, with intervals; as records, a table and a picture."""

from agentevolve.evaluate.curves import curves
from agentevolve.evaluate.picture import learning_curve
from agentevolve.evaluate.scoreboard import board, markdown, to_csv
from agentevolve.evaluate.standing import Arm, Learnt, Standing, caveats, standings
from agentevolve.evaluate.stats import holm, paired, pass_at, pooled, pooled_report, report, sign_flip, wilson
from agentevolve.evaluate.table import table, to_json

__all__ = [
    "Arm",
    "Learnt",
    "Standing",
    "board",
    "caveats",
    "curves",
    "holm",
    "learning_curve",
    "markdown",
    "paired",
    "pass_at",
    "pooled",
    "pooled_report",
    "report",
    "sign_flip",
    "standings",
    "table",
    "to_csv",
    "to_json",
    "wilson",
]
