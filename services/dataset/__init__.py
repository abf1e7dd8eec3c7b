"""Datasets of JSON records in versions: drafts, commits, imports, queries and Parquet partitions."""
