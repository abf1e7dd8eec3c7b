"""Artifacts: bytes kept under their own sha256, and small named objects that are replaced whole.

`file://` is served with plain system calls, not by obstore's LocalStore, for three measured reasons: LocalStore never
calls fsync (a reference must outlive a power cut), its tokio threads do not survive the fork that starts a warm job
(the child hangs at its first write), and it can abort a short process at exit. obstore is for `s3://`.
"""

from penstock.objects.paths import safe_join
from penstock.objects.store import ObjectRef, ObjectStore
from penstock.objects.trees import Tree, TreeFile, fetch_tree, put_tree, read_tree

__all__ = ["ObjectRef", "ObjectStore", "Tree", "TreeFile", "fetch_tree", "put_tree", "read_tree", "safe_join"]
