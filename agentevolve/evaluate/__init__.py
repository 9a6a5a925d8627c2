"""Phase four: what an attempt's outcome says about a policy, with intervals; as records, a table and a picture."""

from agentevolve.evaluate.picture import learning_curve
from agentevolve.evaluate.stats import paired, pooled, pooled_report, report, wilson
from agentevolve.evaluate.table import table, to_json

__all__ = ["learning_curve", "paired", "pooled", "pooled_report", "report", "table", "to_json", "wilson"]
