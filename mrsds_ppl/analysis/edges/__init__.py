"""Which messages held-out trials ask for. Imports models, evidence and communication."""

from mrsds_ppl.analysis.edges.evidence_lost import evidence_lost, training_steps
from mrsds_ppl.analysis.edges.without import Removed, Without, without

__all__ = ["Removed", "Without", "evidence_lost", "training_steps", "without"]
