"""The Parquet partitions of a version: what scans read instead of the database."""
