"""`python -m teachclip`: the command line, for `torchrun -m teachclip`."""

import os
import sys

from teachclip.pipeline.cli.main import main
from teachclip.stages.runtime.launch import launch

if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        if launch().ranks > 1:  # threads of its connections could abort a process whose interpreter ends in good order
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
