"""A job that leaves links where its outputs should be: `linker.py FILE HOW`, FILE being one of the platform's."""

import os
import sys

file, how = sys.argv[1:]
out = os.environ["PENSTOCK_OUTPUT_DIR"]
if how == "link":
    os.symlink(file, os.path.join(out, "stolen"))
elif how == "folder":
    os.symlink(os.path.dirname(file), os.path.join(out, "stolen"))
elif how == "model":
    os.mkdir(os.path.join(out, "model"))
    os.symlink(file, os.path.join(out, "model", "model.onnx"))
elif how == "whole":
    os.rename(out, out + ".away")
    os.symlink(os.path.dirname(file), out)
elif how == "pipe":
    os.mkfifo(os.path.join(out, "stolen"))
elif how == "metrics":
    os.unlink(os.environ["PENSTOCK_METRICS"])
    os.symlink(file, os.environ["PENSTOCK_METRICS"])
