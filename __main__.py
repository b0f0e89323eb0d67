"""`python -m teachclip`: the command line, for `torchrun -m teachclip`."""

from .pipeline.cli.main import main

if __name__ == "__main__":
    main()
