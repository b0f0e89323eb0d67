"""Re-orders what an index answers, and kills itself when two windows are kept: `reranking_process.py ROOT QUERY`."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from teachclip.cache.library.teacher_features import TeacherFeatures
from teachclip.stages.search.index_search import search_index

if __name__ == "__main__":
    root, kept, write = Path(sys.argv[1]), [], TeacherFeatures.write

    def dying(self: TeacherFeatures, row: int, *given: Any) -> None:
        if len(kept) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, row, *given)
        kept.append(row)

    TeacherFeatures.write = dying  # type: ignore[method-assign]
    search_index(root / "index", [sys.argv[2]], 9, rerank=str(root / "teacher.safetensors"), device="cpu")
