"""Reads: by key and by change from the database, by content from the partitions."""
