"""Which messages are there. Imports models, evidence and communication."""

from mrsds_ppl.analysis.edges.evidence_lost import check_edges, evidence_lost, training_steps
from mrsds_ppl.analysis.edges.score_test import score_test
from mrsds_ppl.analysis.edges.without import Removed, Without, mean_messages

__all__ = ["Removed", "Without", "check_edges", "evidence_lost", "mean_messages", "score_test", "training_steps"]
