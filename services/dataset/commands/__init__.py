"""Use cases of the dataset service, a file each."""
