"""What a page and its API ask: answers from an index of windows, and pictures of them."""
