"""cheetah_http.dbslm: what DB-SLM plugs in: its client class and its hot-path adapter, over HTTP and in batches."""
from ..errors import CheetahError
from .adapter import CheetahHotPathAdapter, NullHotPathAdapter, build_cheetah_adapter
from .client import CheetahClient
from .hotpath import ModelMismatch
from .install import install
from .types import (
    AbsoluteVectorOrder, CheetahSerializer, ContextPayload, ContinuationPayload, CountsPayload, HotPathAdapter, NamespaceSummary,
    ProbabilityPayload, RawContextProjection, RawContinuationProjection, RawCountsProjection,
    RawProbabilityProjection, TopKPayload, hash_tokens,
)  # fmt: skip

__all__ = [
    "AbsoluteVectorOrder", "CheetahClient", "CheetahError", "CheetahHotPathAdapter", "CheetahSerializer",
    "ContextPayload", "ContinuationPayload", "CountsPayload", "HotPathAdapter", "ModelMismatch", "NamespaceSummary", "NullHotPathAdapter",
    "ProbabilityPayload", "RawContextProjection", "RawContinuationProjection", "RawCountsProjection",
    "RawProbabilityProjection", "TopKPayload", "build_cheetah_adapter", "hash_tokens", "install",
]  # fmt: skip
