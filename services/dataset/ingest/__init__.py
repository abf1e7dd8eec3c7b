"""Reading imported files: bytes in chunks to records with their keys, or a clear error with the line."""

from services.dataset.ingest.chunks import ChunkFile
from services.dataset.ingest.stage import Part, Staging, read_part

__all__ = ["ChunkFile", "Part", "Staging", "read_part"]
