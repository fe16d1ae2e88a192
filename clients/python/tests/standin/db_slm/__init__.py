"""A stand-in for DB-SLM, for tests: the parts that the drop-in replaces, the tables that it writes, the order in which an engine is
made. The statistics are those of layouts.py, whose figures the engine's are compared with elsewhere."""
from .pipeline import DBSLMEngine

__all__ = ["DBSLMEngine"]
