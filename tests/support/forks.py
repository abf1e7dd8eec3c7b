"""To be imported before gRPC: tests fork jobs out of a process in which others have used gRPC.

Its handlers of forks would abort such a job. (The platform's own shims have no gRPC in them when they fork.)
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
