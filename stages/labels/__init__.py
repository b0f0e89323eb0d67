"""Where a batch's labels come from: cached scores, teachers inside the step, captions left out."""
