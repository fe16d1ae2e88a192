"""What the drop-in takes from db_slm's level 3."""
from dataclasses import dataclass
from datetime import datetime  # noqa: F401: tests put another one here


@dataclass(frozen=True)
class ConceptDefinition:
    concept_id: int
    name: str
    metadata_schema: dict


@dataclass(frozen=True)
class ConceptPrediction:
    concept_id: int
    probability: float


class ConceptRepository:
    def __init__(self, db):
        self.db = db


class Verbalizer:
    def __init__(self, db):
        self.db = db


class ConceptPredictor:
    def __init__(self, db, quantizer):
        self.db, self.quantizer = db, quantizer

    def predict(self, context_hash, fallback_hash="__default__"):
        row = self._fetch_row(context_hash) or (self._fetch_row(fallback_hash) if fallback_hash else None)
        return row and ConceptPrediction(row["concept_id"], self.quantizer.dequantize_prob(row["q_logprob"]))


class ConceptEngine:
    def __init__(self, db, memory, quantizer):
        self.db, self.memory = db, memory
        self.repo, self.verbalizer, self.predictor = ConceptRepository(db), Verbalizer(db), ConceptPredictor(db, quantizer)
