"""A rank of a training that torchrun starts: in_ranks.py RECIPE RUN. Each tells the peak of its memory."""

import json
import resource
import sys

import regard

_, recipe, out = sys.argv
regard.train(recipe, out=out)
print(json.dumps({"peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), flush=True)
