"""Raw files -> clicks, purchases, decisions and features of a live system, and rejects; every row accounted for."""

from slidr.ingest.run import ingest
from slidr.ingest.sources import Source, load_source
from slidr.ingest.summary import FileCounts, IngestSummary

__all__ = ["FileCounts", "IngestSummary", "Source", "ingest", "load_source"]
